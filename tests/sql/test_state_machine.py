"""Anybody may do anything in any order: after each step every rule holds, or the step was refused with a reason."""

import asyncio
import os
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from tests.sql.promises import LIVE, broken, facts
from tests.sql.statements import (
    ADD,
    CHANGE_LEASE,
    CHANGE_LEASE_STATUS,
    CHANGE_VM,
    CHANGE_VM_STATUS,
    HOSTNAMES,
    STATEMENTS,
    TAKE_AWAY,
)
from tests.sql.steps import ADA, BOB, CYD, ask
from tests.sql.world import World, both, obey, refusal_of, some_lease
from tests.support.database import cloned_database
from tests.support.server import TestServer

EXAMPLES = os.environ.get("LABLINK_TEST_EXAMPLES")
"""How many random lives to try; without it always the same 60."""

STALE = "LL001"
REFUSALS_OF_RULES = {STALE, "LL002", "LL003", "LL004", "LL005", "LL006", "LL008", "LL009"}
REFUSALS_OF_POSTGRESQL = {
    "22003": "a number is out of range",
    "23502": "a column needs a value",
    "23503": "something refers to it",
    "23505": "there is one like it already",
    "23514": "a CHECK of one row",
    "428C9": "the column is generated",
    "0A000": "the table is referred to",
    "55006": "the table has changes that wait for the commit",
}
hostnames = st.sampled_from(HOSTNAMES)
people = st.sampled_from([ADA, BOB, CYD, ADA.upper()])
epochs_off = st.sampled_from([0, 0, 0, 0, -1, 1])
ordinals = st.integers(0, 5)


class Lives(RuleBasedStateMachine):
    """One life: machines, people and an admin, each doing something at each step."""

    world: World

    def __init__(self) -> None:
        super().__init__()
        self.over: dict[UUID, asyncpg.Record] = {}
        self.world.run(self.world.begin())

    # people

    @rule(person=people, argv=st.sampled_from([["echo"], None]), pool=st.sampled_from(["default", "default", "gpu"]))
    def somebody_asks(self, person: str, argv: list[str] | None, pool: str) -> None:
        self.attempt(ask(self.world.service, person, argv=argv, pool=pool))

    @rule(number=ordinals)
    def somebody_hands_back(self, number: int) -> None:
        self.attempt(self.world.owner.execute(f"SELECT end_lease({some_lease(number)})"))

    # machines

    @rule(hostname=hostnames, off=st.sampled_from([None, 0, 0, 0, -1, 1, 7, 10**16]), mine=st.booleans())
    def a_machine_says_hello(self, hostname: str, off: int | None, mine: bool) -> None:
        row = self.row(hostname)
        epoch = row["epoch"] + off if row and off is not None else off
        lease = row["lease_id"] if row and mine else uuid4()
        self.attempt(self.client(hostname).execute("SELECT client_api.hello($1, $2)", epoch, lease))

    @rule(hostname=hostnames, off=epochs_off)
    def a_machine_claims(self, hostname: str, off: int) -> None:
        self.say(hostname, off, "claim($1)")

    @rule(
        hostname=hostnames,
        off=epochs_off,
        outcome=st.sampled_from(["started", "exited", "exited", "failed", "unknown", "sang"]),
        exit_code=st.sampled_from([0, 0, 0, 1, None]),
        rest=st.tuples(st.sampled_from([None, "timed-out"]), st.sampled_from(["job", "desktop", None, "song"])),
    )
    def a_machine_reports(
        self, hostname: str, off: int, outcome: str, exit_code: int | None, rest: tuple[str | None, str | None]
    ) -> None:
        row = self.row(hostname)
        lease = (row and row["lease_id"]) or uuid4()
        self.say(hostname, off, "report($2, $1, $3, $4, 'output', $5, $6)", lease, outcome, exit_code, *rest)

    @rule(hostname=hostnames, off=epochs_off, well=st.sampled_from([True, True, False]))
    def a_machine_is_clean_or_cannot_be(self, hostname: str, off: int, well: bool) -> None:
        self.say(hostname, off, "cleaned($1)" if well else "unhealthy($1, 'no disk')")

    @rule(hostname=hostnames)
    def a_machine_does_as_it_is_told(self, hostname: str) -> None:
        """What an honest client does with the answer to hello, so that lives get somewhere."""
        self.attempt(obey(self.client(hostname)))

    @rule(hostname=hostnames)
    def a_machine_enrols_again(self, hostname: str) -> None:
        self.attempt(self.world.enrol(hostname))

    # the allocator

    @rule(sweep=st.sampled_from(["sweep_queue()", "sweep_deadlines()", "sweep_secrets()", "sweep_lost(1e6)"]))
    def a_sweep_comes_round(self, sweep: str) -> None:
        self.attempt(self.world.service.execute(f"SELECT {sweep}"))

    @rule(number=ordinals)
    def time_passes_for_a_lease(self, number: int) -> None:
        late = "'1 second'::interval"
        self.world.run(
            self.world.superuser.execute(
                f"UPDATE leases SET deadline = clock() - {late}, expires_at = clock() - {late} "
                f"WHERE id = {some_lease(number)} AND deadline IS NOT NULL"
            )
        )
        self.a_sweep_comes_round("sweep_deadlines()")

    # the admin

    @rule(
        hostname=hostnames,
        verb=st.sampled_from(["release_vm($1)", "fail_vm($1, 'x')", "return_vm($1)", "retire_vm($1)"]),
    )
    def an_admin_names_a_machine(self, hostname: str, verb: str) -> None:
        self.attempt(self.world.owner.execute(f"SELECT {verb}", hostname))

    @rule(statement=CHANGE_VM)
    def an_admin_changes_a_machine(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(statement=CHANGE_VM_STATUS)
    def an_admin_marks_a_machine(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(statement=CHANGE_LEASE)
    def an_admin_changes_a_lease(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(statement=CHANGE_LEASE_STATUS)
    def an_admin_marks_a_lease(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(statement=ADD)
    def an_admin_adds_a_row(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(statement=TAKE_AWAY)
    def an_admin_takes_rows_away(self, statement: str) -> None:
        self.attempt(self.world.owner.execute(statement))

    @rule(first=STATEMENTS, second=STATEMENTS, keep=st.booleans())
    def an_admin_types_a_transaction(self, first: str, second: str, keep: bool) -> None:
        self.attempt(both(self.world.owner, first, second, "COMMIT" if keep else "ROLLBACK"))

    # what must hold

    @invariant()
    def no_invariant_is_broken(self) -> None:
        found = self.world.run(self.world.owner.fetch("SELECT * FROM broken_invariants() WHERE rule LIKE 'I%'"))
        assert found == []

    @invariant()
    def no_promise_of_the_design_is_broken(self) -> None:
        seen = self.world.run(facts(self.world.owner))
        assert broken(seen) == []
        now = {lease["id"]: lease for lease in seen.leases if lease["status"] not in LIVE}
        changed = {id_: lease for id_, lease in now.items() if self.over.get(id_, lease) != lease}
        assert changed == {}, "a lease that was over has changed"
        self.over = now

    # how it is done

    def client(self, hostname: str) -> asyncpg.Connection:
        return self.world.clients[hostname]

    def row(self, hostname: str) -> asyncpg.Record | None:
        role = self.world.roles[hostname]
        return self.world.run(self.world.owner.fetchrow("SELECT * FROM vms WHERE role = $1", role))

    def say(self, hostname: str, off: int, call: str, *arguments: object) -> None:
        """A verb at the machine's epoch and `off`: when that is another one, it must be refused."""
        row = self.row(hostname)
        epoch = (row["epoch"] if row else 0) + off
        refusal = self.attempt(self.client(hostname).execute(f"SELECT client_api.{call}", epoch, *arguments))
        if row and row["status"] != "retired" and off:
            assert refusal == STALE, "a write with an old epoch succeeded"

    def attempt(self, call: Coroutine[Any, Any, object]) -> str | None:
        """Returns the SQLSTATE of the refusal, which must be one that explains itself, or None."""
        refusal = self.world.run(refusal_of(call))
        if refusal is None:
            return None
        sqlstate = str(refusal.sqlstate)
        event(f"refused with {sqlstate}")
        assert sqlstate in REFUSALS_OF_RULES | REFUSALS_OF_POSTGRESQL.keys(), refusal
        assert sqlstate in REFUSALS_OF_POSTGRESQL or getattr(refusal, "hint", None), refusal
        return sqlstate


@pytest.mark.timeout(900)  # it is the longest of all: half a minute of processor
def test_every_rule_holds_after_whatever_anybody_does(server: TestServer, template: str) -> None:
    loop = asyncio.new_event_loop()
    opened = AsyncExitStack()
    database = loop.run_until_complete(
        opened.enter_async_context(cloned_database(server, template, f"{template}_lives"))
    )
    try:
        Lives.world = World(loop, database)
        run_state_machine_as_test(
            Lives,
            settings=settings(
                max_examples=int(EXAMPLES or 60),
                stateful_step_count=40,
                derandomize=EXAMPLES is None,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
        loop.run_until_complete(Lives.world.end())
    finally:
        loop.run_until_complete(opened.aclose())
        loop.close()
