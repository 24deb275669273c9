"""Walks the whole path through a database: as owner, as service and, with writes that are undone, as a machine."""

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from allocator import bootstrap
from allocator.tokens import sha256
from client.network import Connection
from client.protocol import CHANNEL
from client.scram import new_password, verifier

PREFIX = "lablink-test-"
"""Pool and machine of a full trial are called so; what a killed one left is removed by the next."""

PERSON = "trial@lablink.invalid"
SECONDS = 10.0

FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, AssertionError)

UNDO = (
    "SELECT end_lease(id) FROM leases WHERE live AND starts_with(pool, $1)",
    "DELETE FROM vms WHERE starts_with(hostname, $1)",
    "DELETE FROM leases WHERE starts_with(pool, $1)",
    "DELETE FROM join_tokens WHERE starts_with(hostname, $1)",
    "DELETE FROM pools WHERE starts_with(name, $1)",
)


@dataclass(frozen=True, slots=True)
class Step:
    """One step of the path: how it went, how long it took, why it failed."""

    name: str
    done: bool
    milliseconds: float
    why: str | None = None


@dataclass(slots=True)
class Trial:
    """Steps taken one after the other; the first that fails is the last."""

    steps: list[Step] = field(default_factory=list)

    async def step(self, name: str, work: Callable[[], Awaitable[object]]) -> bool:
        """Do the next step, unless one failed before; returns whether it worked."""
        if not all(each.done for each in self.steps):
            return False
        began, why = time.monotonic(), None
        try:
            async with asyncio.timeout(SECONDS):
                await work()
        except FAILURES as error:
            why = str(error) or f"no answer within {SECONDS:.0f} s"
        self.steps.append(Step(name, why is None, (time.monotonic() - began) * 1000, why))
        return why is None


async def read_only(owner: Connection, service: Connection) -> list[Step]:
    """Reads as both roles do, and a notification from one to the other that concerns nobody."""
    trial = Trial()
    await trial.step("the owner reads machines", lambda: owner.fetch("SELECT * FROM vms LIMIT 1"))
    await trial.step("the owner reads leases", lambda: owner.fetch("SELECT * FROM leases LIMIT 1"))
    await trial.step("the owner reads the history", lambda: owner.fetch("SELECT * FROM events LIMIT 1"))
    await trial.step("the service reads machines", lambda: service.fetch("SELECT * FROM vm_views LIMIT 1"))
    await trial.step("the service counts", lambda: service.fetchval("SELECT unassigned_vms_count()"))
    await trial.step("the service is kept from secrets", lambda: _is_kept_out(service))
    await trial.step("a notification arrives", lambda: _notified(owner, service))
    return trial.steps


async def full(owner: Connection, service: Connection, machine_dsn: Callable[[str, str], str]) -> list[Step]:
    """A request on a pool of its own, from the form to the wipe; then pool, machine, role and lease are removed.

    The history keeps what happened. `machine_dsn` is where a machine connects, given its role and password.
    """
    trial, name = Trial(), PREFIX + secrets.token_hex(4)
    async with _undone(trial, owner):
        path = _Path(owner, service, machine_dsn, name)
        async with path.opened:
            for words, work in path.steps():
                await trial.step(words, work)
    return trial.steps


@asynccontextmanager
async def _undone(trial: Trial, owner: Connection) -> AsyncIterator[None]:
    await trial.step("what an earlier trial left is removed", lambda: _undo(owner))
    try:
        yield
    finally:
        undone, kept = Trial(), trial.steps
        await undone.step("all of it is undone", lambda: _undo(owner))
        kept.extend(undone.steps)


@dataclass(slots=True)
class _Path:
    """One request's way, and what is known of it so far."""

    owner: Connection
    service: Connection
    machine_dsn: Callable[[str, str], str]
    name: str
    opened: AsyncExitStack = field(default_factory=AsyncExitStack)
    heard: "asyncio.Queue[str]" = field(default_factory=asyncio.Queue)
    password: str = field(default_factory=new_password)
    role: str = ""
    lease: UUID | None = None
    epoch: int = 0
    _machine: Connection | None = None

    def steps(self) -> list[tuple[str, Callable[[], Awaitable[object]]]]:
        """The way in order, in words."""
        return [
            ("a machine is invited and enrols", self._enrol),
            ("the machine connects and listens", self._connect),
            ("it says hello and is available", self._hello),
            ("a request is assigned to it", self._request),
            ("it hears of that", self._hear),
            ("it claims the command", self._claim),
            ("it reports how the command ended", self._report),
            ("the lease ends", self._end),
            ("the machine is wiped and available", self._clean),
        ]

    @property
    def machine(self) -> Connection:
        assert self._machine is not None
        return self._machine

    async def _enrol(self) -> None:
        token = sha256(secrets.token_urlsafe(32))
        await self.owner.execute("SELECT ensure_pool($1, false, ARRAY['true'], 60, 60, 60)", self.name)
        await self.owner.execute("SELECT invite_vm($1, $1, $2, 60)", self.name, token)
        row = await self.service.fetchrow("SELECT * FROM enrol_vm($1, $2)", token, verifier(self.password))
        assert row is not None
        self.role = row["role"]

    async def _connect(self) -> None:
        dsn = self.machine_dsn(self.role, self.password)
        self._machine = await asyncpg.connect(
            dsn, timeout=SECONDS, server_settings={"application_name": "lablink test"}
        )
        self.opened.callback(self._machine.terminate)
        await self._machine.add_listener(CHANNEL, lambda *heard: self.heard.put_nowait(str(heard[-1])))

    async def _hello(self) -> None:
        row = await self.machine.fetchrow("SELECT * FROM client_api.hello(0, NULL)")
        assert row is not None and row["status"] == "available", "the machine is not available after its first hello"

    async def _request(self) -> None:
        row = await self.service.fetchrow(
            "SELECT * FROM request_vm($1, 'job', $2, NULL, 'true', $3, $4, p_pool => $5)",
            PERSON,
            json.dumps({"argv": ["true"]}),
            sha256(secrets.token_urlsafe(32)),
            secrets.token_bytes(16),
            self.name,
        )
        assert row is not None and row["outcome"] == "created", "the request was taken for an earlier one"
        self.lease = row["lease_id"]

    async def _hear(self) -> None:
        while self.name not in (heard := await self.heard.get()) or "in-use" not in heard:
            pass

    async def _claim(self) -> None:
        orders = await self.machine.fetchrow("SELECT * FROM client_api.hello(0, NULL)")
        assert orders is not None and orders["lease_id"] == self.lease, "the machine does not see the lease"
        self.epoch = orders["epoch"]
        await self.machine.fetchrow("SELECT * FROM client_api.claim($1)", self.epoch)

    async def _report(self) -> None:
        report = "SELECT client_api.report($1, $2, 'exited', 0, '', NULL)"
        status = await self.machine.fetchval(report, self.lease, self.epoch)
        assert status == "active", f"the lease is {status} after the report"

    async def _end(self) -> None:
        status = await self.service.fetchval("SELECT end_lease($1)", self.lease)
        assert status == "ended", f"the lease is {status} after its end"

    async def _clean(self) -> None:
        orders = await self.machine.fetchrow("SELECT * FROM client_api.hello($1, $2)", self.epoch, self.lease)
        assert orders is not None and orders["status"] == "cleaning", "the machine is not told to clean itself"
        status = await self.machine.fetchval("SELECT client_api.cleaned($1)", orders["epoch"])
        assert status == "available", f"the machine is {status} after its wipe"


async def _undo(owner: Connection) -> None:
    """Removes whatever trials made, but for the history."""
    for statement in UNDO:
        await owner.execute(statement, PREFIX)
    await owner.execute("SELECT sweep_roles()")


async def _is_kept_out(service: Connection) -> None:
    try:
        await service.fetch("SELECT FROM lease_secrets LIMIT 1")
    except asyncpg.InsufficientPrivilegeError:
        return
    raise AssertionError(f"{bootstrap.SERVICE} may read lease_secrets: lablink db migrate takes that back")


async def _notified(owner: Connection, service: Connection) -> None:
    """On a channel of our own: nobody else is woken."""
    channel, heard = f"lablink_trial_{secrets.token_hex(4)}", asyncio.Event()

    def hear(*_: object) -> None:
        heard.set()

    await service.add_listener(channel, hear)
    await owner.execute("SELECT pg_notify($1, '')", channel)
    await heard.wait()
    await service.remove_listener(channel, hear)
