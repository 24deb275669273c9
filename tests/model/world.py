"""Everything that may happen next: the allocator, the person, the clients, and what goes wrong."""

from collections.abc import Iterator

from . import database as rows
from .client import Step, client_steps, committed
from .state import TERMINAL, Client, Journal, Key, Rules, State


def steps(state: State, rules: Rules) -> Iterator[Step]:
    """Every next step, whoever takes it."""
    yield from _allocator_steps(state, rules)
    for which in range(len(state.clients)):
        name = f"client {which + 1}" if len(state.clients) > 1 else "client"
        for step in (*client_steps(state, which, rules), *_crash(state, which, rules)):
            yield step._replace(label=f"{name}: {step.label}")
    yield from _person_steps(state, rules)
    yield from _bounded_faults(state, rules)


def _allocator_steps(state: State, rules: Rules) -> Iterator[Step]:
    assigned = rows.assign(state.database, rules)
    yield Step("allocator: assigns the machine", committed(state, assigned, rules))
    if state.faults.tellings and assigned != state.database:
        faults = state.faults._replace(tellings=state.faults.tellings - 1)
        told = committed(state, assigned, rules)._replace(faults=faults, told=Key(assigned.epoch, assigned.lease))
        yield Step("allocator: assigns the machine, and tells it", told, helps=False)
    late = rows.deadline(state.database, rules)
    if not state.faults.lines:  # nobody who is passed over comes back: their time in the queue is over, sooner or later
        late = rows.give_up_waiting(late)
    yield Step("allocator: the deadline strikes", committed(state, late, rules), helps=False)
    if state.faults.losses:
        faults = state.faults._replace(losses=state.faults.losses - 1)
        lost = committed(state, rows.declare_lost(state.database, rules), rules)._replace(faults=faults)
        yield Step("allocator: declares the machine lost", lost, helps=False)


def _person_steps(state: State, rules: Rules) -> Iterator[Step]:
    for number, lease in enumerate(state.database.leases):
        if lease.status not in TERMINAL:
            ended = rows.end_lease(state.database, number, rules)
            yield Step(f"person: ends lease {'AB'[number]}", committed(state, ended, rules), helps=False)
        if lease.needs_line and state.faults.lines:
            faults = state.faults._replace(lines=state.faults.lines - 1)
            renewed = committed(state, rows.renew_line(state.database, number, rules), rules)._replace(faults=faults)
            yield Step(f"person: gives a fresh line for lease {'AB'[number]}", renewed, helps=False)
        elif state.faults.lines and (aged := rows.grow_old(state.database, number)) != state.database:
            yield Step(
                f"allocator: forgets the code of lease {'AB'[number]}", committed(state, aged, rules), helps=False
            )


def _crash(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """Kill -9, at any step: the journal and the session stay on disk, the process and its child do not."""
    if state.clients[which].doing == "down":
        return
    clients = (*state.clients[:which], Client(), *state.clients[which + 1 :])
    machine = state.machine._replace(child=None, orphan=None if rules.child_dies else state.machine.child)
    journal = state.journal if rules.journal else Journal()
    crashed = state._replace(clients=clients, machine=machine, journal=journal)
    yield Step("is killed", crashed, helps=False)


def _bounded_faults(state: State, rules: Rules) -> Iterator[Step]:
    if state.wire:
        arrived = committed(state, rows.receive(state.database, state.wire, rules), rules)._replace(wire=None)
        label = f"network: the delayed {state.wire.verb}({state.wire.key.epoch}) arrives"
        yield Step(label, arrived, helps=False, written=state.wire.key.epoch)
    if state.faults.restores:
        yield from _restore(state, rules)
    if state.faults.damages and all(client.doing == "down" for client in state.clients):
        faults = state.faults._replace(damages=state.faults.damages - 1)
        damaged = state._replace(journal=Journal(damaged=True), faults=faults)
        yield Step("disk: the journal is damaged", damaged, helps=False)


def _restore(state: State, rules: Rules) -> Iterator[Step]:
    """A backup is taken at any point, and at any later point it replaces the database."""
    if state.backup is None:
        yield Step("admin: takes a backup", state._replace(backup=state.database), helps=False)
        return
    faults = state.faults._replace(restores=state.faults.restores - 1)
    restored = committed(state, state.backup, rules)._replace(faults=faults, backup=None, heard=False)
    yield Step("admin: restores the backup", restored, helps=False)
