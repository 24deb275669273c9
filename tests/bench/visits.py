"""One person's whole visit to either of the systems that are compared, and what of it the person sees."""

import asyncio
from dataclasses import dataclass
from typing import Protocol

import httpx

from tests.bench.load import now
from tests.bench.options import command_of

HOLD_SECONDS = 0.3
"""How long a person keeps the machine once it is theirs; long enough for the command to have ended."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as the person saw it; moments are nanoseconds since 1970. `key` finds it in the side's own records.

    `held_until` is when the machine was given back; `hostname` is None when no machine was given.
    """

    number: int
    sent: int
    answered: int
    status: int
    hostname: str | None
    key: str
    held_until: int
    late: int


class System(Protocol):
    """One of the two that are compared: where people ask for a machine, and how they give it back."""

    @property
    def http(self) -> httpx.AsyncClient: ...

    @property
    def path(self) -> str: ...

    async def keep(self, answer: httpx.Response) -> tuple[str | None, str]:
        """Return when the command must have run: the machine that was given, and the key of the request."""

    async def give_back(self, answer: httpx.Response) -> None:
        """The person has done."""


async def visit(system: System, first: int, number: int, late: int) -> Asked:
    """The visit of one after the first: ask, have the command run, keep the machine for a moment, give it back."""
    sent, number = now(), first + number
    request = {"email": f"person-{number}@bench.test", "crd_command": command_of(number)}
    answer = await system.http.post(system.path, json=request)
    answered = now()
    if not answer.is_success:
        return Asked(number, sent, answered, answer.status_code, None, "", answered, late)
    hostname, key = await system.keep(answer)
    await asyncio.sleep(HOLD_SECONDS)
    held_until = now()
    await system.give_back(answer)
    return Asked(number, sent, answered, answer.status_code, hostname, key, held_until, late)
