"""The transport of a large fleet, and of one that no database port is open to: a WebSocket to an allocator.

What the machine says is one JSON object, with the verb and its arguments; it says the next when that was answered. In
between, the allocator says when there may be something new, or what that is.
"""

import asyncio
import json
import math
import random
import ssl
from contextlib import suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self
from uuid import UUID

from client.boot import Boot
from client.command import Accepts, from_parts
from client.link import LOST, Link, dial, socket_url, told_to_wait, words
from client.protocol import NOBODYS_TOKEN, NOT_ENROLLED, STALE_EPOCH, Assignment, Memory, Orders, Report
from client.rotation import Passwords
from client.scram import hub_sha256, hub_token
from client.transport import (
    REFUSED_PATIENCE_SECONDS,
    Backoff,
    Patience,
    Refused,
    StaleEpoch,
    TransportError,
    UnknownVm,
    Unreachable,
    storable,
)


class HubTransport:
    """A Transport over one WebSocket, opened by the first verb and again by the first verb after a loss."""

    def __init__(
        self,
        allocator_url: str,
        passwords: Passwords,
        wake: asyncio.Event | None = None,
        *,
        refused_patience: float = REFUSED_PATIENCE_SECONDS,
    ) -> None:
        self.wake = wake or asyncio.Event()
        self.wish: str | None = None
        """How the allocator wants this machine to speak, as its last answer to a hello said."""
        self._url = socket_url(allocator_url)
        self._tls = ssl.create_default_context() if self._url.startswith("wss:") else None
        self._passwords = passwords
        self._untried = passwords.to_try()
        self._backoff = Backoff()
        self._last: Orders | None = None
        self._due = 0.0
        self._idle_until: float | None = None
        self._told: dict[str, Any] | None = None
        self._link: Link | None = None
        self._room_in: float | None = None
        self._patience = Patience(refused_patience)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._link is not None:
            await self._link.close()
            self._link = None

    async def hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        return self._take_told(memory) or await self._say_hello(memory, idle_seconds)

    async def _say_hello(self, memory: Memory, idle_seconds: int | None = None) -> Orders:
        self._idle_until = None
        said = {} if idle_seconds is None else {"idle_seconds": idle_seconds}
        try:
            answer = await self._ask("hello", epoch=memory.epoch, lease_id=_text(memory.lease_id), **said)
        except _TokenRefused as error:
            return await self._with_the_next_password(memory, error)
        self._let_in()
        self.wish = answer.get("transport")
        if answer.get("new_password"):
            await self._change_password()
        orders = _orders(answer)
        self._backoff.heard(orders.period_seconds)
        self._last, self._due = orders, _now() + orders.period_seconds
        if self._told and self._told["epoch"] <= orders.epoch:
            self._told = None
        return orders

    async def claim(self, epoch: int) -> Assignment:
        answer = await self._ask("claim", epoch=epoch)
        accepts = Accepts(answer["accepts_desktop"], tuple(answer["programs"]))
        parts = answer["command"] or {}, answer["secrets"]
        return Assignment(
            lease_id=UUID(answer["lease_id"]),
            epoch=answer["epoch"],
            command=None if answer["line"] is not None else from_parts(answer["kind"], *parts, accepts),
            line=answer["line"],
            accepts=accepts,
            limit_seconds=float(answer["limit_seconds"]),
        )

    async def report(self, report: Report) -> None:
        await self._ask(
            "report",
            lease_id=str(report.lease_id),
            epoch=report.epoch,
            outcome=report.outcome,
            exit_code=report.exit_code,
            output=storable(report.output),
            failure=report.failure,
            kind=report.kind,
        )

    async def cleaned(self, epoch: int) -> None:
        await self._ask("cleaned", epoch=epoch)

    async def unhealthy(self, epoch: int, reason: str) -> str:
        return str(await self._ask("unhealthy", epoch=epoch, reason=storable(reason)))

    async def well(self, epoch: int) -> None:
        await self._ask("well", epoch=epoch)

    async def booted(self, boot: Boot) -> None:
        await self._ask("booted", boot=str(boot.id), phases=boot.phases)

    async def idle(self, seconds: float) -> None:
        if self._is_open:
            self._backoff.reset()
            until = min(_now() + seconds, self._idle_until or math.inf)
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self.wake.wait()
        if not self._is_open:
            await asyncio.sleep(self._pause())

    def _hear(self, told: dict[str, Any] | None) -> None:
        """The allocator says something by itself, or nothing more. Orders hold until there may be something newer."""
        self._told = told.get("orders") if told else None
        self.wake.set()

    def _take_told(self, memory: Memory) -> Orders | None:
        """The orders that came by themselves, unless they are no news. They do not put off the next hello."""
        told, self._told = self._told, None
        last = self._last
        if told is None or last is None or told["vm_id"] != last.vm_id:
            return None
        if told["epoch"] <= max(memory.epoch, last.epoch):
            return None
        self._idle_until = self._due
        return _orders(asdict(last) | told)

    @property
    def _is_open(self) -> bool:
        return self._link is not None and not self._link.ended

    def _pause(self) -> float:
        """Seconds until the next try.

        An allocator that stops says over how many all of its machines may spread; one that is full, when it is not.
        """
        room_in, self._room_in = self._room_in, None
        if room_in is not None:
            return random.uniform(room_in, 2 * room_in)
        spread, self._link = self._link.spread if self._link else None, None
        return self._backoff.delay() if spread is None else random.uniform(0, spread)

    async def _ask(self, verb: str, **said: object) -> Any:
        link = await self._connected()
        try:
            answer = await link.ask(json.dumps({"verb": verb, **said}))
        except BaseException as error:  # whatever ended this, the next answer must not be taken for the next verb's
            self._drop()
            if isinstance(error, LOST):
                raise Unreachable(words(error)) from error
            raise
        if "answer" in answer:
            return answer["answer"]
        raise self._refusal(answer)

    def _refusal(self, answer: dict[str, Any]) -> TransportError:
        if "refused" not in answer:
            return Unreachable(str(answer.get("unavailable", "the allocator has no answer")))
        kinds: dict[str, type[TransportError]]
        kinds = {STALE_EPOCH: StaleEpoch, NOT_ENROLLED: UnknownVm, NOBODYS_TOKEN: _TokenRefused}
        return kinds.get(answer["refused"], Refused)(str(answer.get("why", "")))

    async def _connected(self) -> Link:
        if self._link is None or self._link.ended:
            self._drop()
            try:
                self._link = Link(await dial(self._url, self._tls, hub_token(self._untried[0])), self._hear)
            except LOST as error:
                self._room_in = told_to_wait(error)
                raise Unreachable(words(error)) from error
        return self._link

    def _let_in(self) -> None:
        """The password is right."""
        self._patience.let_in()
        self._passwords.let_in_with(self._untried[0])
        self._untried = self._passwords.to_try()

    async def _with_the_next_password(self, memory: Memory, refused: "_TokenRefused") -> Orders:
        """Say hello with the older password. When all are refused, that is believed only when it stays so."""
        self._drop()
        if len(self._untried) > 1:
            del self._untried[0]
            return await self._say_hello(memory)
        self._untried = self._passwords.to_try()
        raise self._patience.refused(str(refused)) from refused

    async def _change_password(self) -> None:
        """Make a new password, as an admin wants, and use it from the next verb on. A full disk puts it off."""
        try:
            verifier = self._passwords.begin()
        except OSError:
            return
        newest = self._passwords.to_try()[0]
        with suppress(Refused):
            if await self._ask("change_password", verifier=verifier, hub_sha256=hub_sha256(newest).hex()):
                self._untried = self._passwords.to_try()
                self._drop()

    def _drop(self) -> None:
        if self._link is not None:
            self._link.abort()
            self._link = None


class _TokenRefused(TransportError):
    """The token is no machine's (any more)."""


def _orders(answer: dict[str, Any]) -> Orders:
    lease = answer["lease_id"]
    return Orders(
        vm_id=answer["vm_id"],
        hostname=answer["hostname"],
        status=answer["status"],
        epoch=answer["epoch"],
        lease_id=UUID(lease) if lease else None,
        lease_status=answer["lease_status"],
        kind=answer["kind"],
        period_seconds=float(answer["period_seconds"]),
    )


def _text(lease: UUID | None) -> str | None:
    return None if lease is None else str(lease)


def _now() -> float:
    return asyncio.get_running_loop().time()
