"""The transport of a small fleet: one PostgreSQL connection a VM, for LISTEN and for every verb.

PostgreSQL lets anyone who can connect forge a notification, so one is only a reason to say hello, and not too often.
"""

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Self

import asyncpg

from client.boot import Boot
from client.command import Accepts, from_parts
from client.network import Connection, KeptAlive, distrust, tls_of
from client.protocol import CHANNEL, Assignment, Memory, Orders, Report, concerns
from client.rotation import Passwords, changed_password
from client.scram import hub_sha256
from client.settings import DatabaseLogin
from client.transport import (
    REFUSED_PATIENCE_SECONDS,
    Backoff,
    Pace,
    Patience,
    Refused,
    StaleEpoch,
    TransportError,
    UnknownVm,
    Unreachable,
    storable,
)

CHECK_SECONDS = 10.0
CHECK_LIMIT_SECONDS = 5.0
WISH_SECONDS = 15.0
CONNECT_LIMIT_SECONDS = 10.0
VERB_LIMIT_SECONDS = 10.0

_SESSION = {
    "application_name": "lablink-client",
    "default_transaction_read_only": "off",  # a role may set this for itself, and a machine is lent to anybody
    "statement_timeout": "5s",
    "lock_timeout": "2s",
    "tcp_keepalives_idle": "10",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}

_BUSY = ("55P03", "57014")  # lock_timeout, statement_timeout: the connection itself is well
_LOST = (asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


class DirectTransport:
    """A Transport over one asyncpg connection, opened by the first verb and again by the first verb after a loss."""

    def __init__(
        self,
        address: DatabaseLogin,
        passwords: Passwords | None = None,
        wake: asyncio.Event | None = None,
        *,
        check_seconds: float = CHECK_SECONDS,
        check_limit: float = CHECK_LIMIT_SECONDS,
        refused_patience: float = REFUSED_PATIENCE_SECONDS,
        wish_seconds: float = WISH_SECONDS,
    ) -> None:
        self.wake = wake or asyncio.Event()
        self.wish: str | None = None
        """How the allocator wants this machine to speak, if the database says that."""
        self._wish_seconds = wish_seconds
        self._asked_at: float | None = None
        self._address = address
        self._passwords = passwords
        self._tls = tls_of(address)
        self._backoff = Backoff()
        self._pace = Pace(self.wake)
        self._is_older = False
        """Whether the database is older than this client, and takes less from it."""
        self._vm_id: int | None = None
        self._connection: Connection | None = None
        self._check_seconds = check_seconds
        self._check_limit = check_limit
        self._patience = Patience(refused_patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pace.cancel()
        if self._connection is not None:
            with suppress(asyncpg.PostgresError, *_LOST):
                await self._connection.close(timeout=1)
            self._drop()

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        said = memory.epoch, memory.lease_id
        if idle_seconds is None or self._is_older:
            row = await self._ask("SELECT * FROM client_api.hello($1, $2)", *said)
        else:
            row = await self._ask("SELECT * FROM client_api.hello($1, $2, $3)", *said, idle_seconds)
        orders = Orders(**row)
        self._vm_id = orders.vm_id
        await self._ask_wish()
        self._backoff.heard(orders.period_seconds)
        return orders

    async def claim(self, epoch: int) -> Assignment:
        row = await self._ask("SELECT * FROM client_api.claim($1)", epoch)
        accepts = Accepts(row["accepts_desktop"], tuple(row["programs"]))
        return Assignment(
            lease_id=row["lease_id"],
            epoch=row["epoch"],
            command=None if row["line"] is not None else _command(row, accepts),
            line=row["line"],
            accepts=accepts,
            limit_seconds=row["limit_seconds"],
        )

    async def report(self, report: Report) -> None:
        await self._ask(
            "SELECT client_api.report($1, $2, $3, $4, $5, $6, $7)",
            report.lease_id,
            report.epoch,
            report.outcome,
            report.exit_code,
            storable(report.output),
            report.failure,
            report.kind,
        )

    async def cleaned(self, epoch: int) -> None:
        await self._ask("SELECT client_api.cleaned($1)", epoch)

    async def unhealthy(self, epoch: int, reason: str) -> str:
        return str((await self._ask("SELECT client_api.unhealthy($1, $2)", epoch, storable(reason)))["unhealthy"])

    async def well(self, epoch: int) -> None:
        await self._ask("SELECT client_api.well($1)", epoch)

    async def booted(self, boot: Boot) -> None:
        await self._ask("SELECT client_api.booted($1, $2)", boot.id, json.dumps(boot.phases))

    async def idle(self, seconds: float) -> None:
        deadline = asyncio.get_running_loop().time() + seconds
        if self._is_open:
            self._backoff.reset()
        while self._is_open and not await self._woken(min(self._check_seconds, deadline - _now())):
            if _now() >= deadline:
                return
            await self._check()
        if not self._is_open:
            await asyncio.sleep(self._backoff.delay())

    @property
    def _is_open(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    async def _woken(self, seconds: float) -> bool:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.wake.wait()
        return False

    async def _check(self) -> None:
        """Drop a connection that is dead without saying so, or that lost its LISTEN (`DISCARD ALL`, a pooler)."""
        if self._connection is None:
            return
        try:
            rows = await self._connection.fetch("SELECT pg_listening_channels()", timeout=self._check_limit)
        except (asyncpg.PostgresError, *_LOST):
            rows = []
        if (CHANNEL,) not in (tuple(row) for row in rows):
            self._drop()

    async def _ask_wish(self) -> None:
        """Ask now and then how this machine is to speak, and see to it that it is known at the hub.

        Also if it is not to go there yet: it may be off when its fleet is moved, and this port closed afterwards.
        """
        if self._connection is None or (self._asked_at is not None and _now() - self._asked_at < self._wish_seconds):
            return
        self._asked_at = _now()
        # A database that is older than this client has no such function.
        with self._translating(), suppress(asyncpg.UndefinedFunctionError):
            self.wish = await self._connection.fetchval("SELECT client_api.transport()")
            if self._passwords:
                digest = hub_sha256(self._passwords.credential.database.password)
                await self._connection.execute("SELECT client_api.keep_hub_token($1)", digest)

    async def _ask(self, query: str, *arguments: object) -> dict[str, Any]:
        connection = await self._connected()
        with self._translating():
            row = await connection.fetchrow(query, *arguments)
        if row is None:
            raise Refused("there is nothing of this machine to be had")
        return dict(row)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        """What goes wrong inside comes out as a TransportError."""
        try:
            yield
        except asyncpg.PostgresError as error:
            raise self._translated(error) from error
        except _LOST as error:
            self._drop()
            raise Unreachable(_words(error)) from error

    def _translated(self, error: asyncpg.PostgresError) -> TransportError:
        """What an answer of PostgreSQL means. Whatever is not about the verb itself may pass with a new connection."""
        state = getattr(error, "sqlstate", None) or ""
        if state.startswith("LL"):
            return {"LL001": StaleEpoch, "LL002": UnknownVm}.get(state, Refused)(_words(error))
        self._is_older = self._is_older or state == "42883"
        if state not in _BUSY:
            self._drop()
        return Unreachable(_words(error))

    async def _connected(self) -> Connection:
        """The connection, opened if need be: it listens before anything is read over it."""
        if self._connection is None or self._connection.is_closed():
            self._drop()
            try:
                self._connection = await self._log_in()
                await self._connection.add_listener(CHANNEL, self._notified)
            except asyncpg.InvalidPasswordError as error:
                self._drop()
                raise self._patience.refused(_words(error)) from error
            except (asyncpg.PostgresError, *_LOST) as error:
                self._drop()
                raise Unreachable(_words(error)) from error
            self._patience.let_in()
            self._connection.add_termination_listener(self._ended)
        return self._connection

    async def _log_in(self) -> Connection:
        """A new connection; if an admin wants it, with a new password, which is used at once."""
        connection = await self._let_in()
        if self._passwords is not None and await changed_password(connection, self._passwords):
            return await self._let_in()
        return connection

    async def _let_in(self) -> Connection:
        """A connection with the newest of the machine's passwords that is taken."""
        if self._passwords is None:
            return await self._connect(self._address.password)
        for password in self._passwords.to_try():
            try:
                connection = await self._connect(password)
            except asyncpg.InvalidPasswordError as error:
                refusal = error
            else:
                self._passwords.let_in_with(password)
                return connection
        raise refusal

    async def _connect(self, password: str) -> Connection:
        return await asyncpg.connect(
            host=self._address.host,
            port=self._address.port,
            database=self._address.database,
            user=self._address.user,
            password=password,
            ssl=self._tls,
            timeout=CONNECT_LIMIT_SECONDS,
            command_timeout=VERB_LIMIT_SECONDS,
            connection_class=KeptAlive,
            server_settings=_SESSION,
        )

    def _notified(self, _connection: object, pid: int, _channel: str, payload: object) -> None:
        if self._pace.would_wake(pid) and concerns(str(payload), self._vm_id):
            self._pace.hint(pid)

    def _ended(self, _connection: object) -> None:
        self.wake.set()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


def _command(row: dict[str, Any], accepts: Accepts) -> Any:
    return from_parts(row["kind"], json.loads(row["command"] or "{}"), json.loads(row["secrets"] or "null"), accepts)


def _words(error: Exception) -> str:
    if distrusted := distrust(error):
        return distrusted
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _now() -> float:
    return asyncio.get_running_loop().time()
