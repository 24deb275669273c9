"""The same calls on the model's rows and on real ones in PostgreSQL, so that the two can be compared."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from uuid import UUID

import asyncpg

from tests.sql.steps import ADA, BOB, Machine, ask
from tests.support.database import Database as RealDatabase

from . import database as rows
from .state import (
    DESKTOP,
    DONE,
    FAILURE,
    JOB,
    LOST,
    NOBODY,
    STARTED,
    TERMINAL,
    TYPED,
    UNKNOWN,
    Database,
    Key,
    Lease,
    Message,
    Rules,
)

RULES = Rules()
MOVES = 5
OUTCOMES = {STARTED: ("started", None), DONE: ("exited", 0), FAILURE: ("failed", None), UNKNOWN: ("unknown", None)}
STORED_COLUMNS = """SELECT string_agg(quote_ident(column_name), ', ') FROM information_schema.columns
                    WHERE table_name = $1 AND is_generated = 'NEVER'"""


@dataclass(slots=True)
class Mirror:
    """One machine and two leases, twice. Every method does one thing to both."""

    real: RealDatabase
    owner: asyncpg.Connection
    machine: Machine
    chance: Random
    model: Database
    ids: tuple[UUID, ...] = ()
    backup: Database | None = None

    def calls(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """All that may be done next, the ordinary more often."""
        usual = (self.hello, self.claim, self.report, self.cleaned) * 4
        unusual = (self.deadline, self.declare_lost, self.restore, self.restore, self.grow_old, self.renew_line)
        return (*usual, *unusual, self.end_lease, self.end_lease)

    async def ask(self) -> None:
        """Two people ask, once nobody holds or awaits anything and no restore can take that back."""
        if any(lease.status not in TERMINAL for lease in self.model.leases):
            return
        if self.backup is not None:
            await self.restore()
            return
        first = self.chance.choice((DESKTOP, TYPED))
        asked = await (self._typed() if first == TYPED else self._asked())
        self.ids = (asked, (await ask(self.owner, BOB, argv=["true"]))["lease_id"])
        self._follow(self.model._replace(leases=(Lease(first, moves=MOVES), Lease(JOB, moves=MOVES))))

    async def _asked(self) -> UUID:
        lease: UUID = (await ask(self.owner, ADA))["lease_id"]
        return lease

    async def _typed(self) -> UUID:
        """As a line that an admin typed, but waiting like any other."""
        lease: UUID = await self.owner.fetchval(
            "INSERT INTO leases (email, kind, crd_command) VALUES ($1, 'typed', 'start-host') RETURNING id", ADA
        )
        await self.owner.execute("SELECT serve_queue('default')")
        return lease

    async def hello(self) -> None:
        """With any memory, be it ahead of the database."""
        memory = self._some_key()
        await self.owner.execute("DELETE FROM events WHERE kind = 'alert.ahead'")  # a minute passes
        with suppress(asyncpg.PostgresError):
            await self.machine.hello(memory.epoch, None if memory.lease == NOBODY else self.ids[memory.lease])
        self._follow(rows.receive(self.model, Message("hello", memory), RULES))

    async def claim(self) -> None:
        """Both give the same lease, or both refuse."""
        key, given = self._some_key(), None
        with suppress(asyncpg.PostgresError):
            given = (await self.machine.claim(key.epoch))["lease_id"]
        expected = rows.claim_answer(self.model, key.epoch, RULES)
        if expected is None or self.model.leases[expected.lease].status != "active":
            assert given == (self.ids[expected.lease] if expected else None)
        self._follow(rows.receive(self.model, Message("claim", key), RULES))

    async def report(self) -> None:
        """Any outcome that a machine may report for this kind of command."""
        key = self._some_key()
        if key.lease == NOBODY:
            return
        is_job = self.model.leases[key.lease].kind == JOB
        outcome = self.chance.choice((STARTED if is_job else DONE, DONE, DONE, UNKNOWN, FAILURE))
        with suppress(asyncpg.PostgresError):
            kind = DESKTOP if outcome in (STARTED, DONE) else None  # only read for a typed line
            await self.machine.report(self.ids[key.lease], key.epoch, *OUTCOMES[outcome], kind=kind)
        self._follow(rows.receive(self.model, Message("report", key, outcome), RULES))

    async def cleaned(self) -> None:
        key = self._some_key()
        with suppress(asyncpg.PostgresError):
            await self.machine.cleaned(key.epoch)
        self._follow(rows.receive(self.model, Message("cleaned", key), RULES))

    async def end_lease(self) -> None:
        number = self.chance.choice((0, 1))
        await self.owner.execute("SELECT end_lease($1)", self.ids[number])
        self._follow(rows.end_lease(self.model, number, RULES))

    async def grow_old(self) -> None:
        number = self.chance.choice((0, 1))
        if self.model.leases[number].kind == DESKTOP:  # an admin's line that is forgotten is another matter
            await self.owner.execute("DELETE FROM lease_secrets WHERE lease_id = $1", self.ids[number])
            has_one = self.model.leases[number].status in ("queued", "assigned")
            await self.owner.execute(
                "UPDATE leases SET needs_line = true WHERE id = $1 AND live AND $2", self.ids[number], has_one
            )
        self._follow(rows.grow_old(self.model, number))

    async def renew_line(self) -> None:
        number = self.chance.choice((0, 1))
        with suppress(asyncpg.PostgresError):
            await self.owner.execute("SELECT renew_line($1, '{}', '{\"code\": \"x\"}', 'start-host')", self.ids[number])
        self._follow(rows.renew_line(self.model, number, RULES))

    async def deadline(self) -> None:
        if self.model.lease != NOBODY:
            await self.real.age(self.ids[self.model.lease], 1000)
        await self.owner.execute("SELECT sweep_deadlines()")
        self._follow(rows.deadline(self.model, RULES))

    async def declare_lost(self) -> None:
        await self.owner.execute(
            "UPDATE vms SET status = 'failed', reason = 'lost' WHERE status IN ('available', 'in-use', 'cleaning')"
        )
        self._follow(rows.declare_lost(self.model, RULES))

    async def restore(self) -> None:
        """Take a backup; the next time bring it back, as a restore does: past all triggers."""
        superuser = await self.real.connect("postgres")
        async with superuser.transaction():
            await superuser.execute("SET LOCAL session_replication_role = replica")
            for table in ("vms", "leases"):
                await (_back_up if self.backup is None else _bring_back)(superuser, table)
        await superuser.close()
        self.model, self.backup = (self.model, self.model) if self.backup is None else (self.backup, None)

    async def read(self) -> Database:
        """The real rows in the model's words. It has none for a machine that kept failing: that is returned at once."""
        await self.owner.execute("SELECT return_vm(hostname) FROM vms WHERE reason LIKE 'unhealthy: three leases%'")
        vm = await self.owner.fetchrow("SELECT * FROM vms")
        assert vm is not None
        found = {row["id"]: row for row in await self.owner.fetch("SELECT * FROM leases")}
        leases = (found[lease_id] for lease_id in self.ids)
        return Database(
            LOST if vm["reason"] == "lost" else vm["status"],
            vm["epoch"],
            self.ids.index(vm["lease_id"]) if vm["lease_id"] else NOBODY,
            tuple(
                Lease(
                    row["kind"],
                    row["status"],
                    (row["live"] and row["epoch"]) or 0,
                    row["needs_line"],
                    row["passed_over"],
                    MOVES - row["moves"],
                )
                for row in leases
            ),
        )

    def _some_key(self) -> Key:
        """The machine's present key, most of the time."""
        if self.chance.random() < 0.85:
            return Key(self.model.epoch, self.model.lease)
        lease = self.chance.choice((NOBODY, 0, 1)) if self.ids else NOBODY
        return Key(max(0, self.model.epoch + self.chance.choice((-1, 0, 1))), lease)

    def _follow(self, model: Database) -> None:
        """In PostgreSQL a machine that becomes available is assigned in the same transaction."""
        self.model = rows.assign(model, RULES)


async def _back_up(superuser: asyncpg.Connection, table: str) -> None:
    await superuser.execute(f"CREATE TABLE backup_{table} AS SELECT * FROM {table}")


async def _bring_back(superuser: asyncpg.Connection, table: str) -> None:
    columns = await superuser.fetchval(STORED_COLUMNS, table)
    await superuser.execute(f"DELETE FROM {table}")
    await superuser.execute(
        f"INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM backup_{table}"
    )
    await superuser.execute(f"DROP TABLE backup_{table}")
