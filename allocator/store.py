"""What requests ask of the database: one statement a method, its errors in our own words."""

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import fields
from typing import Self
from uuid import UUID
from weakref import WeakValueDictionary

import asyncpg

from allocator import errors, requesting, standing
from allocator.asking import Asking, Pool, again, connections
from allocator.batches import Batches
from allocator.connection import Connect
from allocator.sqlstates import kind_of
from allocator.tokens import sha256
from allocator.views import (
    Absent,
    Accepted,
    Counts,
    Enrolled,
    FleetVmView,
    HeldLease,
    Instance,
    LeaseView,
    OperationView,
    PoolRules,
    Tally,
    VmView,
)

VERSION = 8
"""The version of the database that this program was made for, the newest in allocator/sql."""

REQUEST = "SELECT * FROM request_vms($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)"
RULES = "SELECT name, accepts_desktop, programs, lease_seconds FROM pools WHERE name = ANY ($1)"
OPENED = "SELECT v.*, clock() AS now, o.token_sha256 FROM opened_leases($1, $2) o JOIN lease_views v ON v.id = o.id"
ACCEPTED = tuple(each.name for each in fields(Accepted))
OPERATION = f"SELECT {', '.join(each.name for each in fields(OperationView))} FROM operations"
FLEET = f"SELECT {', '.join(each.name for each in fields(FleetVmView))} FROM fleet_status"
ENROL_VM = "SELECT e.* FROM enrol_vm($1, $2) e, LATERAL keep_hub_token($1, e.role, $3)"
ENROL_INSTANCE = "SELECT e.* FROM enrol_instance($1, $2, $4, $5) e, LATERAL keep_hub_token($1, e.role, $3)"

Outcome = Accepted | errors.ServiceError
"""What became of a request."""

Tell = Callable[[Sequence[Outcome]], None]


class Store(Asking):
    """Answers questions on a pool of connections that it opens when they are needed."""

    def __init__(self, pool: Pool, lending: requesting.Lending) -> None:
        super().__init__(pool)
        self._lending = lending
        self._requests = Batches(self._request_together, requesting.MOST, requesting.LANES)
        self._turns = requesting.Turns()
        self._people: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._looks = Batches(self._opened_leases, requesting.MOST)
        self._pools = Batches(self._pool_rules, requesting.MOST)
        self._rules: dict[str, PoolRules] = {}

    @classmethod
    @asynccontextmanager
    async def open(
        cls, connect: Connect, most: int, lending: requesting.Lending = requesting.untold
    ) -> AsyncIterator[Self]:
        """A store with at most that many connections."""
        async with connections(connect, most) as pool:
            own = cls(pool, lending)
            async with own._requests.served(), own._looks.served(), own._pools.served():
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
        changed meanwhile).
        """
        async with self._people.setdefault(request.email.lower(), asyncio.Lock()):
            return await self._request_in_turn(request)

    async def _request_in_turn(self, request: requesting.VmRequest) -> Accepted:
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
        columns = requesting.columns(requests)
        async with self._connection() as connection:
            with self._lending() as lend:
                rows = await connection.fetch(REQUEST, *columns, patience, requesting.ABUNDANCE)
                lend(requesting.lent(requests, rows))
            self._turns.learn(requests, rows)
            tell([_accepted(row) for row in rows])

    async def held_lease(self, lease_id: UUID, tokens: Sequence[str]) -> HeldLease:
        """The lease, if one of the tokens opens it. Raises NoSuchLease: whether it is there is not told to others."""
        by_hash = {sha256(token): token for token in tokens}
        row = await self._looks.ask((lease_id, by_hash.keys()))
        if row is None:
            raise errors.NoSuchLease
        return HeldLease(LeaseView.of(dict(row)), by_hash[row["token_sha256"]])

    async def _opened_leases(
        self,
        looks: Sequence[tuple[UUID, Collection[bytes]]],
        tell: Callable[[Sequence[asyncpg.Record | None]], None],
    ) -> None:
        """Tell the lease of each as a row; None where none of its tokens opens it."""
        shown = [(lease_id, hashed) for lease_id, hashes in looks for hashed in hashes]
        rows = await self._ask(OPENED, [lease_id for lease_id, _ in shown], [hashed for _, hashed in shown])
        found = {(row["id"], row["token_sha256"]): row for row in rows}
        tell([next((found[each, key] for key in keys if (each, key) in found), None) for each, keys in looks])

    async def end_lease(self, lease_id: UUID) -> None:
        """End a lease, whatever step it is at; one that is over stays as it is."""
        await self._ask("SELECT end_lease($1)", lease_id)

    async def vms(self) -> list[VmView]:
        """Every machine that is not retired, in the order of names."""
        return [VmView(**row) for row in await self._ask("SELECT * FROM vm_views")]

    async def free_vms(self) -> int:
        """How many machines a request would get at once."""
        return int((await self._ask("SELECT unassigned_vms_count() AS free"))[0]["free"])

    async def counts(self, pool: str) -> Counts:
        """The pool at a glance."""
        async with self._connection() as connection:
            return await standing.read_counts(connection, pool)

    async def enrol_vm(self, join_token: str, verifier: str, hub_sha256: bytes | None) -> Enrolled:
        """Let a machine in with its join token alone. Raises JoinRefused."""
        rows = await self._ask(ENROL_VM, sha256(join_token), verifier, hub_sha256)
        return Enrolled(**rows[0])

    async def is_open(self, join_token: str) -> bool:
        """Whether a machine may come with this join token that has not come yet."""
        return bool((await self._ask("SELECT is_open_token($1) AS open", sha256(join_token)))[0]["open"])

    async def enrol_instance(
        self, join_token: str, verifier: str, hub_sha256: bytes | None, instance: Instance | None
    ) -> Enrolled:
        """Let a machine in that has shown to be `instance`, without which none of the fleet is. Raises JoinRefused."""
        shown = (instance.id, instance.started_at) if instance else (None, None)
        rows = await self._ask(ENROL_INSTANCE, sha256(join_token), verifier, hub_sha256, *shown)
        return Enrolled(**rows[0])

    async def note_refused_join(self, join_token: str, instance: str | None, why: str) -> None:
        """Write down that somebody who had this join token was not let in."""
        await self._ask("SELECT note_refused_join($1, $2, $3)", sha256(join_token), instance, why)

    async def absent_machines(self) -> list[Absent]:
        """Machines that were invited and did not come, which nobody has written down yet."""
        return [Absent(**row) for row in await self._ask("SELECT * FROM absent_machines()")]

    async def note_absence(self, absent: Absent, phase: str) -> bool:
        """Write down that a machine did not come, and in which phase it stopped. Whether nobody else had."""
        return bool((await self._ask("SELECT note_absence($1, $2) AS noted", absent.token_sha256, phase))[0]["noted"])

    async def admin_of(self, token: str) -> str | None:
        """The admin whose token it is; None for one that is unknown, expired or removed."""
        rows = await self._ask("SELECT admin_of($1) AS name", sha256(token))
        name: str | None = rows[0]["name"]
        return name

    async def operations(self, limit: int) -> list[OperationView]:
        """The newest runs of something long, the newest first."""
        return [OperationView.of(dict(row)) for row in await self._ask(f"{OPERATION} ORDER BY id DESC LIMIT $1", limit)]

    async def operation(self, number: int) -> OperationView:
        """One of them. Raises NoSuchOperation."""
        rows = await self._ask(f"{OPERATION} WHERE id = $1", number)
        if not rows:
            raise errors.NoSuchOperation
        return OperationView.of(dict(rows[0]))

    async def fleet(self) -> list[FleetVmView]:
        """Every machine of the fleet."""
        return [FleetVmView(**row) for row in await self._ask(FLEET)]

    async def stop_flood(self, pid: int) -> str | None:
        """Revoke the machine whose session floods everybody; None when it is no machine's or it has a lot to tell."""
        rows = await self._ask("SELECT stop_flood($1) AS hostname", pid)
        hostname: str | None = rows[0]["hostname"]
        return hostname

    async def tally(self) -> Tally:
        """How many of what there are. Leases that are over are not counted: there are ever more of them."""
        vms = await self._ask("SELECT status, count(*) FROM vms GROUP BY status")
        leases = await self._ask(
            "SELECT status, count(*), coalesce(extract(epoch FROM max(clock() - created_at)), 0)::float8 AS oldest "
            "FROM leases WHERE live GROUP BY status"
        )
        oldest = next((row["oldest"] for row in leases if row["status"] == "queued"), 0.0)
        return Tally(_by_status(vms), _by_status(leases), oldest)

    async def check(self) -> None:
        """Raises Unavailable unless the database answers and is of a version that we may serve."""
        await self._ask("SELECT check_version($1)", VERSION)


def _accepted(row: asyncpg.Record) -> Outcome:
    """What became of one request; a refusal is not raised, for whoever came with it is to have their answer."""
    if state := row["refused"]:
        return kind_of(state)(why=f"SQLSTATE {state}")
    return Accepted(*(row[name] for name in ACCEPTED))


def _by_status(rows: Iterable[asyncpg.Record]) -> Mapping[str, int]:
    return {row["status"]: row["count"] for row in rows}
