"""A run of the protocol in words: what happened, and what the database and the machine look like after it."""

from collections.abc import Sequence
from typing import NamedTuple

from .state import NOBODY, Client, Journal, Key, Machine, State

NAMES = "ABCDEFGH"


class Line(NamedTuple):
    """One step of a run and the state after it."""

    label: str
    state: State


def written_out(run: Sequence[Line]) -> str:
    """One line a step."""
    width = max(len(line.label) for line in run)
    return "\n".join(f"{number:3} {line.label:{width}} | {shown(line.state)}" for number, line in enumerate(run))


def shown(state: State) -> str:
    """A state in one line."""
    db = state.database
    leases = ", ".join(f"{NAMES[n]} {lease.status}" for n, lease in enumerate(db.leases))
    clients = " + ".join(_client(client) for client in state.clients)
    parts = [f"vm {db.status} @{db.epoch}", leases, _journal(state.journal), _machine(state.machine), clients]
    return " | ".join(parts)


def _key(key: Key) -> str:
    return f"@{key.epoch}" if key.lease == NOBODY else f"{NAMES[key.lease]}@{key.epoch}"


def _journal(journal: Journal) -> str:
    if journal.damaged:
        return "journal damaged"
    records = "".join(f", {_key(key)} {word}" for key, word in journal.records)
    return f"fence {journal.fence}{records}"


def _machine(machine: Machine) -> str:
    session = "no session"
    if machine.session:
        session = f"session of {_key(machine.session.key)}{', ready' if machine.session.ready else ''}"
    child = f", child {_key(machine.child)}" if machine.child else ""
    orphan = f", ORPHAN {_key(machine.orphan)}" if machine.orphan else ""
    return session + child + orphan


def _client(client: Client) -> str:
    return f"{client.doing} {_key(client.key)}" if client.key.epoch else client.doing
