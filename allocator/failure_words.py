"""What went wrong with a lease, in words for the person whose it is, with what to do next."""

from allocator.views import EndedBy, LeaseView

FAILURES: dict[str, str] = {
    "code-used": "Google refused the code: it was used before or is too old. Ask again with a fresh command.",
    "code-expired": "The code grew too old while you waited. Ask again with a fresh command.",
    "no-line": "No fresh line came while a machine was kept for you, so it went to whoever is next. Ask again.",
    "command-failed": "The command failed on the machine. Read its output, then ask again.",
    "timed-out": "The command took too long and was stopped. Ask again; if it happens twice, tell your admin.",
    "refused": "The machine refused the command. Check the line you pasted, then ask again.",
    "not-installed": "The program is not installed on the machine. Tell your admin.",
    "unknown": "The machine stopped while your command ran, so its outcome is unknown. Ask again, for a desktop with a "
    "fresh line.",
    "lost": "The machine stopped answering. Ask again for another one.",
    "vm-failed": "The machine was taken out of service. Ask again for another one.",
    "vm-deleted": "The machine was removed. Ask again for another one.",
    "deadline": "The machine did not start your command in time. Ask again.",
    "queue-timeout": "No machine came free in time. Ask again later.",
    "database-restored": "The database was restored to an earlier time, so this lease was ended. Ask again.",
}
"""Why a lease failed (each `client.protocol.Failure`), in words for the person who held it."""

FAILURES_BY: dict[tuple[str | None, EndedBy | None], str] = {
    ("vm-failed", "admin"): "An admin took the machine out of service. Ask again for another one.",
    ("vm-failed", "machine"): "The machine found that it is not well and left service. Ask again for another one.",
    ("vm-deleted", "admin"): "An admin removed the machine. Ask again for another one.",
}
"""The same where it matters who made it fail."""

TROUBLES: dict[str, str] = {
    "code-used": "Google refused the code: it was used before or is too old.",
    "code-expired": "The code grew too old while you waited.",
    "unknown": "The machine was restarted, and what ran on it has ended.",
    "no-line": "A machine was kept for you, and no fresh line came, so it went to whoever was next.",
    "deadline": "The machine that you had did not start your command in time.",
    "lost": "The machine that you had stopped answering.",
    "vm-failed": "The machine that you had was taken out of service.",
    "vm-deleted": "The machine that you had was removed.",
}
"""What went wrong while a lease lived on, in words for its holder: of the keys of FAILURES those that end no lease."""

LOSSES = frozenset({"deadline", "lost", "vm-failed", "vm-deleted"})
"""Those after which it is another machine."""

LEFT_IDLE = "Nobody had used it for long, so it went to whoever is next. Ask again when you need one."
"""Why a lease ended whose holder was warned and did not come."""


def failure_words(lease: LeaseView) -> str | None:
    """Why a lease failed and what to do next, if it failed."""
    if lease.failure is None:
        return None
    unheard_of = "The machine could not run it. Ask again; if it happens twice, tell your admin."
    return FAILURES_BY.get((lease.failure, lease.ended_by)) or FAILURES.get(lease.failure, unheard_of)


def trouble_words(lease: LeaseView) -> str | None:
    """What went wrong last while a lease lived on, until it works again; and that it was left idle."""
    if lease.left_idle:
        return LEFT_IDLE
    if lease.trouble is None or lease.status not in ("queued", "assigned"):
        return None
    return TROUBLES.get(lease.trouble, "Something went wrong with the machine that you had.")


def silence_words(lease: LeaseView) -> str | None:
    """That its machine is not heard, before it counts as lost."""
    if lease.silent_since is None:
        return None
    still = "If it stays so, the machine is given up, and this page says how it goes on."
    return f"Nothing is heard of {lease.hostname} at the moment. {still}"
