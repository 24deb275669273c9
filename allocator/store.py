"""What requests ask of the database: one statement a method, its errors in our own words."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import fields
from operator import itemgetter
from typing import Self
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg

from allocator import errors, requesting, standing
from allocator.asking import Pool, again, connections
from allocator.batches import Batches, Shared
from allocator.connection import Connect
from allocator.machines import Machines
from allocator.pool_views import Counts, PoolRules, PoolStatus
from allocator.sqlstates import kind_of
from allocator.tokens import sha256
from allocator.views import Accepted, Condition, HeldLease, LeaseView, Tally
from client.command import Command, summary

VERSION = 9
"""The version of the database that this program was made for, the newest in allocator/sql."""

REQUEST = "SELECT * FROM request_vms($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
RULES = "SELECT name, accepts_desktop, programs, lease_seconds, access, per_person FROM pools WHERE name = ANY ($1)"
OFFERED = """
    SELECT name, accepts_desktop, programs, lease_seconds, access, per_person FROM pools p
    WHERE name = $1 OR name <> 'default' OR EXISTS (SELECT FROM vms WHERE pool = p.name AND status <> 'retired')
    ORDER BY name <> $1, name
"""
"""`default` is always there; where it is not the usual pool, it counts once it has a machine."""

ACCEPTED = itemgetter(*(each.name for each in fields(Accepted)))

REASONS_SECONDS = 5.0
"""For how long everybody is told the same reasons: they are dear to know, and nobody's own."""

Outcome = Accepted | errors.ServiceError
"""What became of a request."""

Tell = Callable[[Sequence[Outcome]], None]

WAITS_HELD = "SELECT pool, likely_held::float8 AS likely, sure_held::float8 AS sure FROM forecast_calibration"


class Store(Machines):
    """Answers questions on a pool of connections that it opens when they are needed."""

    def __init__(self, pool: Pool, lending: requesting.Lending) -> None:
        super().__init__(pool)
        self._lending = lending
        self._requests = Batches(self._request_together, requesting.MOST, requesting.LANES)
        self._turns = requesting.Turns()
        self._joining = asyncio.Semaphore(requesting.LANES)
        self._reasons = asyncio.Lock()
        self._people: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._looks = Batches(self._opened_leases, requesting.MOST)
        self._pools = Batches(self._pool_rules, requesting.MOST)
        self._statuses = Shared(lambda: self._with(standing.read_pools), requesting.MOST)
        self._why_pools = Shared(self._read_why_pools, requesting.MOST, REASONS_SECONDS)
        self._rules: dict[str, PoolRules] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, connect: Connect, most: int, lending: requesting.Lending = requesting.untold
    ) -> AsyncIterator[Self]:
        """A store with at most that many connections."""
        async with connections(connect, most) as pool:
            own = cls(pool, lending)
            async with AsyncExitStack() as served:
                for batches in (own._requests, own._looks, own._pools, own._statuses, own._why_pools):
                    await served.enter_async_context(batches.served())
                yield own

    async def pool_rules(self, name: str) -> PoolRules:
        """What the pool accepts. Raises NoSuchPool."""
        rules = await self._pools.ask(name)
        if rules is None:
            self._rules.pop(name, None)
            raise errors.NoSuchPool
        self._rules[name] = rules
        return rules

    async def _pool_rules(self, names: Sequence[str], tell: Callable[[Sequence[PoolRules | None]], None]) -> None:
        """Tell what each of these pools accepts; None where there is none."""
        found = {row["name"]: PoolRules.of(dict(row)) for row in await self._ask(RULES, names)}
        tell([found.get(name) for name in names])

    def remembered_rules(self, name: str) -> PoolRules | None:
        """What the pool accepted when it was last asked about; None when it was not, or was gone."""
        return self._rules.get(name)

    async def request_vm(self, request: requesting.VmRequest) -> Accepted:
        """Open a lease, or find the one that the request repeats or that this person holds.

        One person's requests are made one by one: should somebody keep that person's lease locked, they take one
        connection and hold others up once. Raises KeyReused, NoSuchPool (it went meanwhile), CommandNotAccepted (it
        changed meanwhile), MembersOnly, JoinCodeRefused, BudgetSpent.
        """
        async with self._people.setdefault(request.email.lower(), asyncio.Lock()):
            return await self._request_in_turn(request)

    async def _request_in_turn(self, request: requesting.VmRequest) -> Accepted:
        if request.join_sha256:  # by itself: a request may wait for locks, and nobody else joins with a code meanwhile
            async with self._joining:  # a classroom leaves connections to everybody else
                await self._ask("SELECT join_group($1, $2)", request.email, request.join_sha256)
        answer = await self._requests.ask(request)
        if isinstance(answer, errors.Conflict):
            return await again(lambda: self._request_alone(request))
        if isinstance(answer, errors.ServiceError):
            raise answer
        return answer

    async def _request_alone(self, request: requesting.VmRequest) -> Accepted:
        answers: list[Outcome] = []
        await self._request_vms([request], None, answers.extend)
        [answer] = answers
        if isinstance(answer, errors.ServiceError):
            raise answer
        return answer

    async def _request_together(self, requests: Sequence[requesting.VmRequest], tell: Tell) -> None:
        """Tell what became of each; a Conflict: make it again, alone, for something was in its or another's way."""
        try:
            async with self._turns.of(requests):
                await self._request_vms(requests, requesting.PATIENCE, tell)
        except (errors.Busy, errors.DatabaseFailed, errors.Refusal):
            tell([errors.Conflict() for _ in requests])

    async def _request_vms(self, requests: Sequence[requesting.VmRequest], patience: str | None, tell: Tell) -> None:
        """Tell what became of each, before the connection is put back, which takes as long as a tenth of a request."""
        arguments = *requesting.columns(requests), patience, requesting.ABUNDANCE
        async with self._connection() as connection:
            with self._lending() as lend:
                rows = await connection.fetch(REQUEST, *arguments)
                lend(requesting.lent(requests, rows))
            self._turns.learn(requests, rows)
            tell([_accepted(row) for row in rows])

    async def held_lease(self, lease_id: UUID, tokens: Sequence[str]) -> HeldLease:
        """The lease, if one of the tokens opens it. Raises NoSuchLease: whether it is there is not told to others."""
        by_hash = {sha256(token): token for token in tokens}
        opened = await self._looks.ask((lease_id, by_hash.keys()))
        if opened is None:
            raise errors.NoSuchLease
        lease, token_sha256 = opened
        return HeldLease(lease, by_hash[token_sha256])

    async def _opened_leases(
        self,
        looks: Sequence[tuple[UUID, Collection[bytes]]],
        tell: Callable[[Sequence[tuple[LeaseView, bytes] | None]], None],
    ) -> None:
        """Tell the lease of each and what opened it; None where none of its tokens does."""
        shown = [(lease_id, hashed) for lease_id, hashes in looks for hashed in hashes]
        found = await self._with(lambda connection: standing.read_opened(connection, shown))
        opened = {(lease.id, key): (lease, key) for lease, key in found}
        tell([next((opened[each, key] for key in keys if (each, key) in opened), None) for each, keys in looks])

    async def renew_line(self, lease_id: UUID, command: Command, shown: Command) -> None:
        """Give a lease the line that its holder is asked for. Raises NothingAsked."""
        told = json.dumps(command.public()), json.dumps(command.secrets()), summary(shown)
        await self._ask("SELECT renew_line($1, $2, $3, $4)", lease_id, *told)

    async def why_lease(self, lease_id: UUID) -> list[Condition]:
        """Why a lease is where it is, and what happens next. It takes a while in a long queue: one after the other."""
        async with self._reasons:
            return [Condition(**row) for row in await self._ask("SELECT * FROM why_lease($1)", lease_id)]

    async def why_pool(self, pool: str) -> list[Condition]:
        """Why somebody waits in a pool, or nobody has to, and what happens next. Raises NoSuchPool."""
        return [Condition(**row) for row in await self._ask("SELECT * FROM why_pool($1)", pool)]

    async def budget_in_words(self, pool: str) -> str | None:
        """What of the pool's budget is spent, and when the next month begins; None when it has no price."""
        said: str | None = (await self._ask("SELECT budget_in_words($1) AS words", pool))[0]["words"]
        return said

    async def extend_lease(self, lease_id: UUID) -> None:
        """Make a lease a step longer. Raises NotLonger, BudgetSpent."""
        await self._ask("SELECT extend_lease($1)", lease_id)

    async def still_here(self, lease_id: UUID) -> None:
        """Its holder says that they are there."""
        await self._ask("SELECT still_here($1)", lease_id)

    async def end_lease(self, lease_id: UUID) -> None:
        """End a lease, whatever step it is at; one that is over stays as it is."""
        await self._ask("SELECT end_lease($1)", lease_id)

    async def free_vms(self) -> int:
        """How many machines a request would get at once."""
        return int((await self._ask("SELECT unassigned_vms_count() AS free"))[0]["free"])

    async def counts(self, pool: str) -> Counts:
        """The pool at a glance."""
        return await self._with(lambda connection: standing.read_counts(connection, pool))

    async def pool_status(self) -> list[PoolStatus]:
        """Every pool as everybody may see it: all who ask meanwhile have the same answer, for it is a dear one."""
        return await self._statuses.ask(None)

    async def why_pools(self) -> Mapping[str, tuple[Condition, ...]]:
        """As `why_pool`, of every pool by its name, and what everybody may read; REASONS_SECONDS old at most."""
        return await self._why_pools.ask(None)

    async def _read_why_pools(self) -> Mapping[str, tuple[Condition, ...]]:
        told: dict[str, list[Condition]] = {}
        for pool, *condition in await self._ask("SELECT * FROM why_pools()"):
            told.setdefault(pool, []).append(Condition(*condition))
        return {pool: tuple(conditions) for pool, conditions in told.items()}

    async def offered_pools(self, usual: str) -> list[PoolRules]:
        """The pools that somebody may choose from, the usual one first. Raises NoSuchPool."""
        found = [PoolRules.of(dict(row)) for row in await self._ask(OFFERED, usual)]
        if not found or found[0].name != usual:
            raise errors.NoSuchPool
        return found

    async def admin_of(self, token: str) -> str | None:
        """The admin whose token it is; None for one that is unknown, expired or removed."""
        rows = await self._ask("SELECT admin_of($1) AS name", sha256(token))
        name: str | None = rows[0]["name"]
        return name

    async def pause_pool(self, pool: str, who: str, *, paused: bool) -> None:
        """Pause a pool, or let it go on; the history says that `who` did it. Raises NoSuchPool."""
        await self._ask("SELECT pause_pool($1, $2, $3)", pool, paused, who)

    async def tally(self) -> Tally:
        """How many of what there are. Leases that are over are not counted: there are ever more of them."""
        vms = await self._ask("SELECT status, count(*) FROM vms GROUP BY status")
        leases = await self._ask(
            "SELECT status, count(*), coalesce(extract(epoch FROM max(clock() - created_at)), 0)::float8 AS oldest "
            "FROM leases WHERE live GROUP BY status"
        )
        oldest = next((row["oldest"] for row in leases if row["status"] == "queued"), 0.0)
        held = {row["pool"]: {"likely": row["likely"], "sure": row["sure"]} for row in await self._ask(WAITS_HELD)}
        return Tally(_by_status(vms), _by_status(leases), oldest, held, await self.pool_status())

    async def check(self) -> None:
        """Raises Unavailable unless the database answers and is of a version that we may serve."""
        await self._ask("SELECT check_program($1)", VERSION)


def _accepted(row: asyncpg.Record) -> Outcome:
    """What became of one request; a refusal is not raised, for whoever came with it is to have their answer."""
    if state := row["refused"]:
        return kind_of(state)(why=f"SQLSTATE {state}")
    return Accepted(*ACCEPTED(row))


def _by_status(rows: Iterable[asyncpg.Record]) -> Mapping[str, int]:
    return {row["status"]: row["count"] for row in rows}
