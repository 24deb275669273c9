"""People who ask for a machine over HTTP, so many a second, and remember every answer; some hand theirs back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import asyncpg
import httpx

from tests.support import LIMIT_SECONDS

A_SECOND = 50
AT_ONCE = 10
"""How many wait for an answer at most: no more than the service has connections, or they would wait for each other."""

LEASES = "/api/v1/leases"
LATER_SECONDS = 0.1
AFTERS = 30
"""How many others ask before somebody hands back what they have, or gives up waiting."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody was told, and when they had asked and were told, in seconds of the loop's clock."""

    method: str
    status: int
    problem: str
    retry_after: str | None
    asked: float
    told: float


@dataclass(slots=True)
class Person:
    """One person: what they send, and, once they were told that it is accepted, their lease and its token."""

    wanted: dict[str, str]
    key: str = field(default_factory=lambda: str(uuid4()))
    lease: str = ""
    token: str = ""
    asked: float = 0.0
    told: float = 0.0
    """When they had asked, and were told of the lease, in seconds of the loop's clock."""
    gave_back: bool = False
    """They were told that their lease is over."""

    @property
    def holder(self) -> dict[str, str]:
        """The header that opens their lease."""
        return {"Authorization": f"Bearer {self.token}"}


@dataclass(slots=True)
class Crowd:
    """`command` is what the person of that number brings."""

    client: httpx.AsyncClient
    command: Callable[[int], str]
    people: list[Person] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    unanswered: int = 0
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def accepted(self) -> list[Person]:
        """Those who were told that they have a lease."""
        return [person for person in self.people if person.lease]

    @property
    def refused(self) -> Iterator[Answer]:
        """Every answer that is not a 2xx."""
        return (answer for answer in self.answers if not 200 <= answer.status < 300)

    async def accepts(self, more: int) -> None:
        """Wait until `more` people have a lease than do now."""
        wanted = len(self.accepted) + more
        await self._until(lambda: len(self.accepted) >= wanted)

    async def is_refused(self) -> None:
        """Wait until one more person is refused."""
        refused = len(list(self.refused))
        await self._until(lambda: len(list(self.refused)) > refused)

    async def ask(self, person: Person) -> httpx.Response | None:
        """They ask, or ask again with the same key. None when nobody answered."""
        answer = await self._send("POST", LEASES, json=person.wanted, headers={"Idempotency-Key": person.key})
        if answer is not None and answer.is_success:
            person.lease, person.token = answer.json()["id"], answer.json()["token"]
            person.asked, person.told = self.answers[-1].asked, self.answers[-1].told
            person.gave_back = False
        async with self._changed:
            self._changed.notify_all()
        return answer

    async def look(self, person: Person) -> httpx.Response | None:
        """They look at the lease that they were given."""
        return await self._send("GET", f"{LEASES}/{person.lease}", headers=person.holder)

    async def give_back(self, person: Person) -> httpx.Response | None:
        """They end their lease."""
        answer = await self._send("DELETE", f"{LEASES}/{person.lease}", headers=person.holder)
        person.gave_back = answer is not None and answer.is_success
        return answer

    async def leave(self) -> None:
        """Everybody ends what they have."""
        for person in self.accepted:
            if not person.gave_back:
                await answered(partial(self.give_back, person))

    async def lost(self, owner: "asyncpg.Connection[asyncpg.Record]") -> list[Person]:
        """Whose lease, or whose end of it, is not in the database although they were told so."""
        rows = await owner.fetch("SELECT id, live FROM leases")
        live = {str(row["id"]): row["live"] for row in rows}
        return [each for each in self.accepted if each.lease not in live or (each.gave_back and live[each.lease])]

    async def come(self, stop: asyncio.Event) -> None:
        """One after the other, until told to stop; returns when everybody has been answered."""
        async with asyncio.TaskGroup() as visits:
            while not stop.is_set():
                await self._room.acquire()
                self.people.append(self._new_person(len(self.people)))
                visit = visits.create_task(self._visit(len(self.people) - 1))
                visit.add_done_callback(lambda _: self._room.release())
                with suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 1 / A_SECOND)

    def _new_person(self, number: int) -> Person:
        return Person({"email": f"p{number}@example.org", "crd_command": self.command(number)})

    async def _until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(LIMIT_SECONDS), self._changed:
            await self._changed.wait_for(reached)

    async def _visit(self, number: int) -> None:
        await self.ask(self.people[number])
        before = self.people[number - AFTERS] if number >= AFTERS else None
        if before and before.lease and not before.gave_back:
            await self.give_back(before)

    async def _send(self, method: str, path: str, **content: object) -> httpx.Response | None:
        asked = asyncio.get_running_loop().time()
        try:
            answer = await self.client.request(method, path, **content)  # type: ignore[arg-type]
        except httpx.TransportError:
            self.unanswered += 1
            return None
        problem = "" if answer.is_success else str(answer.json()["type"])
        told = asyncio.get_running_loop().time()
        self.answers.append(Answer(method, answer.status_code, problem, answer.headers.get("Retry-After"), asked, told))
        return answer


async def answered(asking: Callable[[], Awaitable[httpx.Response | None]]) -> httpx.Response:
    """What somebody is told who asks again for as long as nobody answers, or they are told to come later."""
    async with asyncio.timeout(LIMIT_SECONDS):
        while (answer := await asking()) is None or answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:  # noqa: ASYNC110
            await asyncio.sleep(LATER_SECONDS)
    return answer


@asynccontextmanager
async def coming(crowd: Crowd) -> AsyncIterator[None]:
    """People come until the block ends, and have all been answered then; more may come later."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(crowd.come(stop))
        try:
            yield
        finally:
            stop.set()
