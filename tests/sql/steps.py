"""What tests of the rules say again and again: ask for a machine, be a machine, be refused."""

import asyncio
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.support import LIMIT_SECONDS
from tests.support.database import Database, Vm

ADA, BOB, CYD = "ada@example.org", "bob@example.org", "cyd@example.org"
CODE, PIN = "4/0AVG7fiQcodecodecode", "123456789012"  # too long to be in a time or an id by chance
REDIRECT = "https://remotedesktop.google.com/_/oauthredirect"
LINE = f'DISPLAY= /opt/google/chrome-remote-desktop/start-host --code="{CODE}" --redirect-url="{REDIRECT}" --pin={PIN}'
SUMMARY = f"start-host --code=*** --redirect-url={REDIRECT} --pin=***"
SALT = b"salt"
LONG_AGO = 3600.0


def sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def token_of(email: str) -> bytes:
    """The SHA-256 of the token that `ask` gives this person."""
    return sha256("token of " + email)


@contextmanager
def refused(sqlstate: str) -> Iterator[None]:
    """The statements inside are refused with this SQLSTATE, and the refusal says what to do next."""
    with pytest.raises(asyncpg.PostgresError) as refusal:
        yield
    assert refusal.value.sqlstate == sqlstate, refusal.value
    assert getattr(refusal.value, "hint", None), refusal.value


async def is_cut_off(connection: asyncpg.Connection) -> bool:
    """Returns True once the server has ended this session; fails the test if it does not."""
    ended = asyncio.Event()
    connection.add_termination_listener(lambda _: ended.set())
    if not connection.is_closed():
        async with asyncio.timeout(LIMIT_SECONDS):
            await ended.wait()
    return True


async def swept(service: asyncpg.Connection, sweep: str) -> int:
    """How many a sweep changed, or else the next one: whoever it cuts off may take more than a moment to let go."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (changed := await service.fetchval(f"SELECT {sweep}")):
            pass
    return int(changed)


def asked(
    email: str = ADA,
    *,
    argv: list[str] | None = None,
    key: str | None = None,
    request: str = "the request",
    pool: str = "default",
) -> tuple[object, ...]:
    """What request_vm is told of this person's desktop command, or of the job `argv`."""
    return (
        email,
        "job" if argv else "desktop",
        json.dumps({"argv": argv} if argv else {"redirect_url": REDIRECT}),
        None if argv else json.dumps({"code": CODE, "pin": PIN}),
        " ".join(argv) if argv else SUMMARY,
        token_of(email),
        SALT,
        key and sha256(key),
        key and sha256(request),
        pool,
    )


async def ask(service: asyncpg.Connection, email: str = ADA, **how: Any) -> asyncpg.Record:
    """request_vm's answer to `asked(email, …)`."""
    answer = await service.fetchrow(
        "SELECT * FROM request_vm($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)", *asked(email, **how)
    )
    assert answer is not None
    return answer


async def ask_together(
    service: asyncpg.Connection, *requests: tuple[object, ...], patience: str | None = None
) -> list[asyncpg.Record]:
    """request_vms' answers to requests that came together."""
    columns = [list(column) for column in zip(*requests, strict=True)]
    return list(
        await service.fetch(
            "SELECT * FROM request_vms($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)", *columns, patience
        )
    )


async def lease_of(owner: asyncpg.Connection, lease_id: UUID) -> asyncpg.Record:
    row = await owner.fetchrow("SELECT * FROM leases WHERE id = $1", lease_id)
    assert row is not None
    return row


async def row_of(owner: asyncpg.Connection, hostname: str = "vm-1") -> asyncpg.Record:
    row = await owner.fetchrow("SELECT * FROM vms WHERE hostname = $1", hostname)
    assert row is not None
    return row


@dataclass(slots=True)
class Machine:
    """A machine's side: its connection, with one method for each verb of client_api."""

    vm: Vm
    connection: asyncpg.Connection

    @property
    def hostname(self) -> str:
        return self.vm.hostname

    async def hello(self, epoch: int | None = 0, lease: UUID | None = None, idle: int | None = None) -> asyncpg.Record:
        orders = await self.connection.fetchrow("SELECT * FROM client_api.hello($1, $2, $3)", epoch, lease, idle)
        assert orders is not None
        return orders

    async def claim(self, epoch: int) -> asyncpg.Record:
        assignment = await self.connection.fetchrow("SELECT * FROM client_api.claim($1)", epoch)
        assert assignment is not None
        return assignment

    async def report(
        self,
        lease: UUID,
        epoch: int,
        outcome: str | None,
        exit_code: int | None = None,
        output: str | None = "",
        failure: str | None = None,
        kind: str | None = None,
    ) -> str:
        return str(
            await self.connection.fetchval(
                "SELECT client_api.report($1, $2, $3, $4, $5, $6, $7)",
                lease,
                epoch,
                outcome,
                exit_code,
                output,
                failure,
                kind,
            )
        )

    async def cleaned(self, epoch: int) -> str:
        return str(await self.connection.fetchval("SELECT client_api.cleaned($1)", epoch))

    async def unhealthy(self, epoch: int, reason: str | None) -> str:
        return str(await self.connection.fetchval("SELECT client_api.unhealthy($1, $2)", epoch, reason))

    async def well(self, epoch: int) -> str:
        return str(await self.connection.fetchval("SELECT client_api.well($1)", epoch))

    async def clean(self) -> None:
        """Does what `cleaning` asks for."""
        orders = await self.hello(None)
        assert orders["status"] == "cleaning"
        assert await self.cleaned(orders["epoch"]) in ("available", "in-use")

    async def run(self, exit_code: int = 0) -> UUID:
        """Claims what it is given and reports that it ran to its end."""
        orders = await self.hello(None)
        assignment = await self.claim(orders["epoch"])
        lease = assignment["lease_id"]
        assert isinstance(lease, UUID)
        await self.report(lease, assignment["epoch"], "started")
        await self.report(lease, assignment["epoch"], "exited", exit_code, "Host started successfully.")
        return lease


async def machine(
    database: Database, hostname: str = "vm-1", status: str = "available", pool: str = "default"
) -> Machine:
    """A machine that enrolled, with its connection."""
    vm = await database.vm(hostname, status, pool)
    return Machine(vm, await vm.connect())


async def claimed(
    database: Database, service: asyncpg.Connection, argv: list[str] | None = None
) -> tuple[Machine, UUID]:
    """A machine that claimed Ada's desktop, or the job `argv`, at epoch 1."""
    if argv:
        await service.execute("SELECT ensure_pool('default', true, $1, 600, 90, 600)", argv[:1])
    vm = await machine(database)
    await ask(service, ADA, argv=argv)
    return vm, (await vm.claim(1))["lease_id"]


async def lent(database: Database, service: asyncpg.Connection, email: str = ADA) -> tuple[Machine, UUID]:
    """A machine whose desktop is active."""
    vm = await machine(database)
    await ask(service, email)
    return vm, await vm.run()


def noticed(connection: asyncpg.Connection) -> list[str]:
    """The notices this connection gets from now on."""
    words: list[str] = []
    connection.add_log_listener(lambda _, message: words.append(message.message))
    return words


async def connections(database: Database, number: int, role: str = "lablink_app") -> list[asyncpg.Connection]:
    return list(await asyncio.gather(*(database.connect(role) for _ in range(number))))


async def machines(database: Database, number: int) -> list[Machine]:
    return [await machine(database, f"vm-{n}") for n in range(1, number + 1)]


async def waits_for_a_lock(owner: asyncpg.Connection, waiting: asyncpg.Connection) -> None:
    """Returns once the backend of `waiting` is blocked by another one."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await owner.fetchval("SELECT cardinality(pg_blocking_pids($1))", waiting.get_server_pid()):
            pass
