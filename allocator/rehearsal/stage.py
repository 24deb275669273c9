"""The scratch database of a rehearsal, its clock, and what is to happen in it."""

import heapq
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

from allocator.rehearsal.plan import Plan
from allocator.standing import ACCOUNTS, DUTIES
from allocator.upkeep.reach import connect
from client.network import Connection

BEGIN = datetime(2030, 1, 7, 9, tzinfo=UTC)

LEFT_OUT = ACCOUNTS | {"roles", "months"}
"""Duties that nobody at a rehearsal sees; and roles are the whole server's, where real machines may have some."""

NEEDED = {
    "forecasts": " WHERE EXISTS (SELECT FROM leases l WHERE l.status = 'queued' AND NOT EXISTS ("
    "SELECT FROM foretold o WHERE o.lease_id = l.id))"
}
"""When a duty has something to do that counts here: who was told a time is not told another one."""

FLEETING = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""Settings of a server whose data nobody will miss."""

STAGE = (Path(__file__).parent / "stage.sql").read_text()
POOL = """
    UPDATE pools SET programs = '{true}', accepts_desktop = true, restart_on_move = true, lease_seconds = $1,
                     keep_seconds = $2, extend_seconds = $3, longest_seconds = $1 + 2 * $3, queue_seconds = $4
"""
MACHINE = "INSERT INTO vms (hostname, status, role) VALUES ($1::text, 'booting', $1::text)"
GROUPS = "INSERT INTO groups (name) SELECT 'group-' || n FROM generate_series(1, $1::integer) AS n"
MEMBER = "INSERT INTO members (email, group_name) VALUES ($1, $2)"
MACHINE_SAYS = "SELECT * FROM rehearsal_machine($1, $2, $3, $4, $5::text::uuid, $6)"
PERSON_DOES = "SELECT * FROM rehearsal_person($1, $2, $3, $4::text::uuid)"
TICK = "SELECT * FROM rehearsal_tick($1, $2, $3, $4)"

Act = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody has to do: `claim` or `wipe` a machine, or bring a `line`."""

    what: str
    role: str
    epoch: int
    lease: str


Follow = Callable[[Order], None]


@dataclass(slots=True)
class Stage:
    """The database, what is to happen in it, and when it is. `follow` is told what is to be done, again and again."""

    owner: Connection
    plan: Plan
    follow: Follow = print
    now: float = 0.0
    """Seconds from the beginning."""
    away: bool = False
    """Whether no allocator is there at this moment."""
    _coming: list[tuple[float, int, Act]] = field(default_factory=list)
    _numbers: "count[int]" = field(default_factory=count)

    def chance(self, whose: str) -> random.Random:
        """What chance has for somebody, whatever it has for others: the same for the same seed."""
        return random.Random(f"{self.plan.seed} {whose}")

    def later(self, seconds: float, act: Act) -> None:
        """Have it happen then."""
        heapq.heappush(self._coming, (self.now + seconds, next(self._numbers), act))

    async def play(self) -> None:
        """Until nothing more is to happen."""
        while self._coming:
            moment, _, act = heapq.heappop(self._coming)
            self.now = max(self.now, moment)
            await act()

    def close(self) -> None:
        """Nothing more is to happen."""
        self._coming.clear()

    async def machine(
        self, role: str, verb: str, epoch: int = 0, lease: str | None = None, why: str | None = None
    ) -> str:
        """What the machine is answered."""
        return str(await self._act(MACHINE_SAYS, role, verb, epoch, lease, why))

    async def person(self, verb: str, who: str = "", lease: str | None = None) -> str:
        """What the person is answered."""
        return str(await self._act(PERSON_DOES, verb, who, lease))

    async def tick(self, heard: list[str], service: bool, rules: str | None) -> Mapping[str, Any]:
        """How the pool is once the machines were heard and the service has swept; `rules` are looked at then."""
        row = await self.owner.fetchrow(TICK, self._clock(), heard, service, rules)
        assert row is not None
        self._pass_on(row["orders"])
        return dict(row)

    async def _act(self, query: str, *arguments: object) -> object:
        row = await self.owner.fetchrow(query, self._clock(), *arguments)
        assert row is not None
        self._pass_on(row["orders"])
        return row["answer"]

    def _pass_on(self, orders: str) -> None:
        for order in json.loads(orders):
            self.follow(Order(*order))

    def _clock(self) -> str:
        return (BEGIN + timedelta(seconds=self.now)).isoformat()


@asynccontextmanager
async def staged(dsn: str) -> AsyncIterator[Connection]:
    """The owner's connection to a database of this version that nobody has used, whose clock is set from now on."""
    owner = await connect(dsn)
    try:
        # Compiling a statement takes a second, and this runs each of them for moments only.
        await owner.execute("SET client_min_messages = error; SET synchronous_commit = off; SET jit = off")
        await owner.execute("SELECT set_config('rehearsal.now', $1, false)", BEGIN.isoformat())
        await owner.execute(STAGE + _duties())
        yield owner
    finally:
        owner.terminate()


def _duties() -> str:
    """A function that does what the service does once a period."""
    calls = " ".join(f"PERFORM {call}{NEEDED.get(duty, '')};" for duty, call in DUTIES.items() if duty not in LEFT_OUT)
    takes = "contact_seconds double precision"
    return f"CREATE FUNCTION rehearsal_duties({takes}) RETURNS void LANGUAGE plpgsql AS $$ BEGIN {calls} END $$"
