"""What a client process does next: one function a step, one step a place where it may crash.

starting → polling → claiming → claimed → intended → running → exited → reporting → polling
                  ↘ fencing → erasing → cleaned → polling
"""

from collections.abc import Iterator
from typing import NamedTuple

from .database import claim_answer, receive
from .journal import begun_anew, fenced, memory, open_intents_closed, refuses, verdict, written
from .state import (
    ACTIVE,
    CLEANING,
    DONE,
    FAILURE,
    IN_USE,
    INTENT,
    JOB,
    STARTED,
    UNKNOWN,
    Client,
    Database,
    Journal,
    Key,
    Machine,
    Message,
    Rules,
    Session,
    State,
)

POLLING = Client("polling")


class Step(NamedTuple):
    """One thing that may happen. `helps` marks what goes on when nothing goes wrong and nobody interferes."""

    label: str
    state: State
    helps: bool = True
    written: int | None = None
    """The epoch carried by a write that reached the database in this step."""
    seen: int | None = None
    """The epoch of an answer that reached the machine in this step."""


def client_steps(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """Everything that one client process may do in this state."""
    client = state.clients[which]
    if client.doing in ("polling", "running"):
        yield from _hello(state, which, rules)
        yield from _unasked(state, which, rules)
    if client.doing == "polling" and not rules.recover_before_poll:
        yield Step("recovers, after polling", state._replace(journal=open_intents_closed(state.journal)))
    elif client.doing in _LOCAL:
        yield from _LOCAL[client.doing](state, which, rules)
    if client.doing in _VERBS:
        yield from _write(state, which, rules)


def _now(state: State, which: int, client: Client) -> State:
    clients = (*state.clients[:which], client, *state.clients[which + 1 :])
    return state._replace(clients=clients)


def _is_job(state: State, key: Key) -> bool:
    return state.database.leases[key.lease].kind == JOB


# Steps that only the machine sees


def _start(state: State, which: int, rules: Rules) -> Iterator[Step]:
    doing = "starting" if rules.recover_before_poll else "polling"
    yield Step("starts", _now(state, which, Client(doing)))


def _recover(state: State, which: int, rules: Rules) -> Iterator[Step]:
    recovered = state._replace(journal=open_intents_closed(state.journal), nudged=not rules.polls)
    yield Step("closes open intents as unknown", _now(recovered, which, POLLING))


def _intend(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """Ask the journal first. It is not asked for open intents: recovery left none. (The client looks all the same.)"""
    client = state.clients[which]
    word = verdict(state.journal, client.key)
    if refuses(state.journal, client.key, rules):
        reporting = Client("reporting", client.key, FAILURE)
        yield Step("remembers something newer than its claim", _now(state, which, reporting))
    elif word in (DONE, FAILURE) or (word == UNKNOWN and not rules.retry_unknown):
        yield Step(f"finds {word} on record", _now(state, which, Client("reporting", client.key, word)))
    elif rules.intent_first:
        intended = state._replace(journal=written(state.journal, client.key, INTENT))
        yield Step("writes its intent", _now(intended, which, client._replace(doing="intended")))
    else:
        yield Step("writes no intent yet", _now(state, which, client._replace(doing="intended")))


def _run(state: State, which: int, rules: Rules) -> Iterator[Step]:
    key = state.clients[which].key
    session = Session(key, ready=_is_job(state, key))
    machine = state.machine._replace(session=session, child=key)
    started = state._replace(machine=machine, started=tuple(sorted((*state.started, key))))
    yield Step("starts the command", _now(started, which, Client("running", key, STARTED)))


def _exit(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """A desktop command that exits 0 leaves a session to log in to; a job is done whatever its exit code."""
    key = state.clients[which].key
    for word in (DONE,) if _is_job(state, key) else (DONE, FAILURE):
        exited = state._replace(machine=state.machine._replace(session=Session(key, word == DONE), child=None))
        yield Step(f"sees the command end, {word}", _now(exited, which, Client("exited", key, word)))


def _conclude(state: State, which: int, rules: Rules) -> Iterator[Step]:
    client = state.clients[which]
    concluded = state._replace(journal=written(state.journal, client.key, client.outcome))
    yield Step(f"writes {client.outcome}", _now(concluded, which, client._replace(doing="reporting")))


def _fence(state: State, which: int, rules: Rules) -> Iterator[Step]:
    key = state.clients[which].key
    done = state._replace(journal=fenced(state.journal, key.epoch))
    yield Step(f"fences at {key.epoch}", _now(done, which, Client(_after("fencing", rules), key)))


def _erase(state: State, which: int, rules: Rules) -> Iterator[Step]:
    erased = state._replace(machine=Machine(orphan=state.machine.orphan))
    key = state.clients[which].key
    yield Step("kills its child and erases the session", _now(erased, which, Client(_after("erasing", rules), key)))


_LOCAL = {
    "down": _start,
    "starting": _recover,
    "claimed": _intend,
    "intended": _run,
    "running": _exit,
    "exited": _conclude,
    "fencing": _fence,
    "erasing": _erase,
}


def _after(doing: str, rules: Rules) -> str:
    order = _wipe_order(rules)
    return order[order.index(doing) + 1]


def _wipe_order(rules: Rules) -> tuple[str, ...]:
    if not rules.wipe_fences_intents:
        return ("erasing", "cleaned")
    return ("fencing", "erasing", "cleaned") if rules.fence_before_erase else ("erasing", "fencing", "cleaned")


# Steps that go over the wire


def _hello(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """Heartbeat, poll and fence exchange in one: the machine tells what it remembers and hears its orders."""
    if not (rules.polls or state.nudged):
        return
    told = Message("hello", memory(state.journal))
    database = receive(state.database, told, rules)
    heard = committed(state, database, rules)._replace(heard=True)
    orders = Key(database.epoch, database.lease)
    journal = state.journal
    if journal.damaged:
        journal = begun_anew(orders) if rules.damage_fences else Journal()
    answered = heard._replace(journal=journal, nudged=False)
    obeying = _obeying(answered, which, orders, rules)
    yield Step("says hello", _now(_stopped(answered, which, obeying), which, obeying), seen=orders.epoch)
    yield Step("says hello, the answer is lost", heard, helps=False)


def _unasked(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """Orders that come by themselves, once or twice: a machine that does not trust its journal asks first."""
    orders = state.told
    if orders is None or state.journal.damaged:
        return
    client, taken = state.clients[which], state._replace(told=None)
    if rules.news_only and orders.epoch <= memory(state.journal).epoch:
        yield Step("hears orders that are no news", taken)
    elif client.key != orders:
        obeying = Client("claiming", orders)
        taken, state = (_stopped(each, which, obeying) for each in (taken, state))
        yield Step("hears its orders unasked", _now(taken, which, obeying), seen=orders.epoch)
        yield Step("hears its orders unasked, for the first time", _now(state, which, obeying), seen=orders.epoch)


def _stopped(state: State, which: int, obeying: Client) -> State:
    """The machine without the command of another key than the one that its client obeys now."""
    if state.clients[which].doing != "running" or obeying.key == state.clients[which].key:
        return state
    return state._replace(machine=state.machine._replace(child=None))


def _obeying(state: State, which: int, orders: Key, rules: Rules) -> Client:
    """What the answer to hello makes the client do."""
    database, client = state.database, state.clients[which]
    if database.status == CLEANING:
        return Client(_wipe_order(rules)[0], orders)
    if database.status != IN_USE or database.leases[orders.lease].needs_line:
        return POLLING
    if client.doing == "running" and client.key == orders:
        return client
    word = verdict(state.journal, orders)
    if database.leases[orders.lease].status != ACTIVE:
        return client if client.told == orders else Client("claiming", orders)
    return Client("reporting", orders, word) if word == UNKNOWN else POLLING


_VERBS = {"claiming": "claim", "running": "report", "reporting": "report", "cleaned": "cleaned"}


def _write(state: State, which: int, rules: Rules) -> Iterator[Step]:
    """A write is answered, or its answer is lost and it is repeated, or a copy of it arrives much later."""
    client = state.clients[which]
    verb = _VERBS[client.doing]
    message = Message(verb, client.key, client.outcome)
    epoch = client.key.epoch
    done = committed(state, receive(state.database, message, rules), rules)
    what = f"sends {verb}({epoch}{', ' + client.outcome if client.outcome else ''})"
    yield Step(what, _now(done, which, _answered(state.database, client, rules)), written=epoch)
    yield Step(f"{what}, the answer is lost", done, helps=False, written=epoch)
    if client.doing != "running":
        yield Step("loses its connection", _now(state, which, POLLING), helps=False)
    if state.faults.late_writes and state.wire is None:
        faults = state.faults._replace(late_writes=state.faults.late_writes - 1)
        yield Step(f"{what}, which is delayed", state._replace(wire=message, faults=faults), helps=False)


def _answered(database: Database, client: Client, rules: Rules) -> Client:
    """Only a claim brings something to do. After any other answer, and after a refusal: go and look."""
    if client.doing == "running":
        return client
    if client.doing != "claiming":
        return POLLING if rules.reports_again else POLLING._replace(told=client.key)
    key = claim_answer(database, client.key.epoch, rules)
    return Client("claimed", key) if key else POLLING


def committed(state: State, database: Database, rules: Rules) -> State:
    """The rows after a transaction; a change nudges the machine, which only matters to one that does not poll."""
    nudged = not rules.polls and (state.nudged or database != state.database)
    return state._replace(database=database, nudged=nudged)
