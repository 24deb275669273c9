"""What the pages say of pools: how many machines there are to be had, who waits and how long."""

from collections.abc import Sequence

from allocator.pool_views import Counts, PoolRules, PoolStatus
from allocator.time_words import duration, wait_words

PAUSED = "Paused: whoever asks gets a place in line, and machines are lent again when an admin lets the pool go on."


def pool_words(counts: Counts | None) -> str:
    """How many machines there are to be had, in a sentence; None: the database is away."""
    if counts is None:
        return "We cannot see the machines at this moment"
    if counts.paused:
        return "No machine is lent at the moment: an admin has paused the pool"
    total = counts.free + counts.lent + counts.coming
    if counts.free:
        return f"{counts.free} of {total} machines {'is' if counts.free == 1 else 'are'} free"
    if not total:
        return "There are no machines yet"
    waiting = {0: "", 1: ", one person waits"}.get(counts.waiting, f", {counts.waiting} people wait")
    return f"No machine is free{waiting}"


def status_words(pool: PoolStatus) -> tuple[str, ...]:
    """What the status page says of a pool beside how many machines are free."""
    said = [PAUSED] if pool.paused else []
    if pool.waiting and not pool.paused:
        said.append(f"To whoever asks now we say: {wait_words(pool.eta_seconds, pool.eta_p90_seconds)}")
    if pool.booting:
        machines = "One machine is" if pool.booting == 1 else f"{pool.booting} machines are"
        usual = ""
        if pool.boot_seconds is not None and pool.boot_p90_seconds is not None:
            likely, sure = duration(pool.boot_seconds), duration(pool.boot_p90_seconds)
            usual = f", which takes {likely}; in nine of ten cases at most {sure}"
        said.append(f"{machines} booting{usual}.")
    if pool.missing and not pool.paused:
        more = "One machine more is" if pool.missing == 1 else f"{pool.missing} machines more are"
        hindered = "none can be made at the moment" if pool.stopped else "on the way soon"
        said.append(f"{more} wanted, and {hindered}.")
    if pool.hours:
        said.append(f"Planned: {pool.hours}.")
    return tuple(said)


def choice_words(pool: PoolStatus) -> str:
    """What whoever chooses a pool is told of it now."""
    if pool.paused:
        return PAUSED
    wait = f". {wait_words(pool.eta_seconds, pool.eta_p90_seconds)}" if pool.waiting else "."
    return pool_words(pool.counts) + wait


def terms_words(rules: PoolRules) -> str:
    """What a pool is for, who may use it and for how long."""
    kinds = (["Desktops"] if rules.accepts.desktop else []) + list(rules.accepts.programs)
    who = " For members of a group." if rules.members_only else ""
    return f"{', '.join(kinds)}; for up to {duration(rules.lease_seconds)}.{who}"


def limits_words(offered: Sequence[PoolRules]) -> str:
    """How many machines one person may have at a time of these pools; of all that allow one, it is one."""
    several = [pool for pool in offered if pool.per_person > 1]
    those = " and ".join(f"{pool.per_person} of {pool.name}" for pool in several)
    if not several:
        return "One machine a person at a time."
    if len(several) < len(offered):
        return f"One machine a person at a time, and besides up to {those}."
    if len(offered) == 1:
        return f"Up to {several[0].per_person} machines a person at a time."
    return f"A person may have up to {those} at a time."
