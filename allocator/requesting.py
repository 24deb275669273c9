"""Requests for a machine as the database takes them: one alone, or many in one statement."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from allocator.tokens import sha256
from client.command import Command, summary

MOST = 100
"""How many requests go in one statement."""

LANES = 2
"""How many such statements may be under way: while one waits for the disk, PostgreSQL works at the other."""

ABUNDANCE = 2 * LANES * MOST
"""With so many free machines everybody gets one whose statement is under way or follows, in whatever order they end."""

PATIENCE = "100ms"
"""How long they wait for what somebody else is changing; then each is asked alone."""


@dataclass(frozen=True, slots=True)
class VmRequest:
    """What somebody asks for, checked. `shown` is the part of the command that people may read.

    Without a command it is for a desktop whose line comes when the machine is there.
    """

    email: str
    command: Command | None = field(repr=False)
    shown: Command | None = field(repr=False)
    token: str = field(repr=False)
    token_salt: bytes = field(repr=False)
    idempotency_sha256: bytes | None
    request_sha256: bytes | None
    pool: str
    join_sha256: bytes | None = None
    """Of a code with which they become a member of a group first."""

    @property
    def kind(self) -> str:
        """What it is for."""
        return self.command.kind if self.command else "desktop"

    def row(self) -> tuple[object, ...]:
        """What request_vms is told of it."""
        hidden = self.command and self.command.secrets()
        return (
            self.email,
            self.kind,
            json.dumps(self.command.public()) if self.command else None,
            json.dumps(hidden) if hidden else None,
            summary(self.shown) if self.shown else None,
            sha256(self.token),
            self.token_salt,
            self.idempotency_sha256,
            self.request_sha256,
            self.pool,
        )


@dataclass(frozen=True, slots=True)
class Lent:
    """A machine that is lent from now on: the lease that it serves, of this kind, at this epoch."""

    vm_id: int
    epoch: int
    lease_id: UUID
    kind: str


Lending = Callable[[], AbstractContextManager[Callable[[Iterable[Lent]], object]]]
"""Makes the block that a request is asked in; what was lent there is said to the function that the block gets."""


@contextmanager
def untold() -> Iterator[Callable[[Iterable[Lent]], object]]:
    """Nobody waits to hear of what is lent."""
    yield lambda lent: None


class Turns:
    """Statements for requests may be under way together where machines abound; elsewhere each waits for its turn."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._abounding: set[str] = set()

    @asynccontextmanager
    async def of(self, requests: Sequence[VmRequest]) -> AsyncIterator[None]:
        """The block for these requests: who came first is asked for first wherever there may not be enough for all."""
        async with self._turn:
            abounding = {request.pool for request in requests} <= self._abounding
            if not abounding:
                yield
        if abounding:
            yield

    def learn(self, requests: Sequence[VmRequest], answers: Sequence[Any]) -> None:
        """What the rows of request_vms' answer say of the pools."""
        for request, answer in zip(requests, answers, strict=True):
            if answer["abounds"]:
                self._abounding.add(request.pool)
            else:
                self._abounding.discard(request.pool)


def columns(requests: Sequence[VmRequest]) -> list[list[object]]:
    """What request_vms is told of all of them."""
    return [list(column) for column in zip(*(request.row() for request in requests), strict=True)]


def lent(requests: Sequence[VmRequest], answers: Sequence[Any]) -> list[Lent]:
    """Which machines were lent, as the rows of request_vms' answer to these requests say."""
    return [
        Lent(answer["vm_id"], answer["epoch"], answer["lease_id"], request.kind if request.command else "hold")
        for request, answer in zip(requests, answers, strict=True)
        if answer["outcome"] == "created" and answer["vm_id"] is not None
    ]
