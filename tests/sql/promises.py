"""The invariants I1 to I10 once more, from the design and not from the SQL: rows and history judged in Python."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import asyncpg

from tests.sql.steps import CODE, PIN

WAITING = {"queued", "assigned", "claimed"}
LIVE = WAITING | {"active"}

LEASE_STEPS = {
    None: LIVE | {"ended", "failed", "cancelled"},
    "queued": {"assigned", "failed", "cancelled"},
    "assigned": {"claimed", "queued", "failed", "cancelled"},
    "claimed": {"active", "assigned", "queued", "failed", "cancelled"},
    "active": {"active", "assigned", "queued", "ended", "failed"},
}
RISING = {
    ("available", "in-use"),
    ("in-use", "in-use"),
    ("available", "cleaning"),
    ("in-use", "cleaning"),
    ("retired", "booting"),
}
STEADY = {
    ("booting", "available"),
    ("booting", "cleaning"),
    ("cleaning", "available"),
    ("failed", "cleaning"),
    ("booting", "booting"),
    ("cleaning", "cleaning"),
    ("failed", "failed"),
    ("retired", "retired"),
}
OUT_OF_SERVICE = {"failed", "retired"}


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything there is, read in one snapshot."""

    vms: Sequence[asyncpg.Record]
    leases: Sequence[asyncpg.Record]
    secrets: Sequence[asyncpg.Record]
    events: Sequence[asyncpg.Record]

    @property
    def live(self) -> list[asyncpg.Record]:
        return [lease for lease in self.leases if lease["status"] in LIVE]


@dataclass(frozen=True, slots=True)
class Step:
    """One event of a machine's history."""

    status: str
    epoch: int


async def facts(owner: asyncpg.Connection) -> Facts:
    async with owner.transaction(isolation="repeatable_read", readonly=True):
        return Facts(
            await owner.fetch("SELECT * FROM vms ORDER BY id"),
            await owner.fetch("SELECT * FROM leases ORDER BY place"),
            await owner.fetch("SELECT * FROM lease_secrets"),
            await owner.fetch("SELECT * FROM events ORDER BY id"),
        )


def broken(seen: Facts) -> list[str]:
    """What does not hold, in words; empty when all is well."""
    return [f"{rule.__name__}: {what}" for rule in RULES for what in rule(seen)]


def i1_one_live_lease_a_machine_and_a_person(seen: Facts) -> Iterator[str]:
    machines = Counter(lease["vm_id"] for lease in seen.live if lease["vm_id"] is not None)
    people = Counter(lease["email"].lower() for lease in seen.live if "@" in lease["email"])
    yield from (f"{who} has {number}" for who, number in [*machines.items(), *people.items()] if number > 1)


def i3_an_available_machine_is_empty(seen: Facts) -> Iterator[str]:
    for vm in seen.vms:
        if vm["status"] == "available" and (
            vm["cleaned_epoch"] != vm["epoch"] or vm["email"] or vm["crd_command"] or vm["lease_id"]
        ):
            yield str(vm)


def i4_an_active_lease_was_started(seen: Facts) -> Iterator[str]:
    for lease in seen.leases:
        ready = lease["exit_code"] == 0 if lease["kind"] == "desktop" else lease["kind"] == "job"
        if lease["status"] == "active" and lease["kind"] != "hold" and not (lease["started_at"] and ready):
            yield str(lease)


def i6_in_use_means_one_live_lease_of_that_epoch(seen: Facts) -> Iterator[str]:
    of_vms = {(vm["id"], vm["lease_id"], vm["epoch"]) for vm in seen.vms if vm["status"] == "in-use"}
    of_leases = {(lease["vm_id"], lease["id"], lease["epoch"]) for lease in seen.live if lease["status"] != "queued"}
    yield from (str(pair) for pair in of_vms ^ of_leases)


def i6_a_lent_machine_shows_its_leases_person_and_command(seen: Facts) -> Iterator[str]:
    leases = {lease["id"]: lease for lease in seen.leases}
    for vm in seen.vms:
        lease = leases.get(vm["lease_id"])
        if lease and vm["email"] not in (None, lease["email"]):
            yield f"{vm['email']} and {lease['email']}"


def i7_an_epoch_rises_with_every_change_of_hands_and_never_falls(seen: Facts) -> Iterator[str]:
    for vm_id, steps in machine_histories(seen).items():
        for before, after in pairwise(steps):
            change = (before.status, after.status)
            cut_off = after.status in OUT_OF_SERVICE and before.status != after.status
            if after.epoch < before.epoch or ((change in RISING or cut_off) and after.epoch == before.epoch):
                yield f"machine {vm_id}: {before} then {after}"


def i8_every_change_of_a_machine_has_its_event(seen: Facts) -> Iterator[str]:
    histories = machine_histories(seen)
    for vm in seen.vms:
        steps = histories.get(vm["id"], [])
        if steps[-1:] != [Step(vm["status"], vm["epoch"])]:
            yield f"{vm['hostname']} is {vm['status']} at {vm['epoch']}, its history is {steps}"
        for before, after in pairwise(steps):
            change = (before.status, after.status)
            if change not in RISING | STEADY and after.status not in OUT_OF_SERVICE:
                yield f"{vm['hostname']}: {change}"


def i8_every_change_of_a_lease_has_its_event(seen: Facts) -> Iterator[str]:
    steps: dict[object, list[str]] = defaultdict(list)
    for event in seen.events:
        if event["kind"].startswith("lease.") and event["kind"] not in ("lease.extended", "lease.shortened"):
            steps[event["lease_id"]].append(event["kind"].removeprefix("lease."))
    for lease in seen.leases:
        history = [None, *steps[lease["id"]]]
        if history[-1] != lease["status"]:
            yield f"lease {lease['id']} is {lease['status']}, its history is {history}"
        for before, after in pairwise(history):
            if before != after and after not in LEASE_STEPS.get(before, set()):
                yield f"lease {lease['id']}: {before} then {after}"


def i10_secrets_are_kept_for_who_waits_only(seen: Facts) -> Iterator[str]:
    waiting = {lease["id"] for lease in seen.leases if lease["status"] in WAITING and lease["started_at"] is None}
    yield from (f"lease {secret['lease_id']}" for secret in seen.secrets if secret["lease_id"] not in waiting)


def i10_secrets_are_in_no_other_table(seen: Facts) -> Iterator[str]:
    for row in [*seen.vms, *seen.leases, *seen.events]:
        text = str(row)
        if CODE in text or PIN in text:
            yield text


RULES = [
    i1_one_live_lease_a_machine_and_a_person,
    i3_an_available_machine_is_empty,
    i4_an_active_lease_was_started,
    i6_in_use_means_one_live_lease_of_that_epoch,
    i6_a_lent_machine_shows_its_leases_person_and_command,
    i7_an_epoch_rises_with_every_change_of_hands_and_never_falls,
    i8_every_change_of_a_machine_has_its_event,
    i8_every_change_of_a_lease_has_its_event,
    i10_secrets_are_kept_for_who_waits_only,
    i10_secrets_are_in_no_other_table,
]


def machine_histories(seen: Facts) -> dict[int, list[Step]]:
    """The steps of each machine since it was last deleted."""
    histories: dict[int, list[Step]] = defaultdict(list)
    for event in seen.events:
        if event["kind"] == "vm.deleted":
            histories.pop(event["vm_id"], None)
        elif event["kind"].startswith("vm.") and event["vm_id"] is not None:
            detail = json.loads(event["detail"])
            if "epoch" in detail:  # else it says something beside the status: that it is drained, say
                histories[event["vm_id"]].append(Step(event["kind"].removeprefix("vm."), detail["epoch"]))
    return histories
