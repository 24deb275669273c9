"""Who comes first is let in first, a few at a time, and nobody stands in line longer than they would wait."""

import asyncio
from dataclasses import dataclass, field

import pytest

from allocator.doorman import AT_ONCE, MOST_SECONDS, Doorman
from tests.unit.conftest import Clock


@dataclass(eq=False, slots=True)
class Visitor:
    name: str
    heard: list[str] = field(default_factory=list)

    def come_in(self) -> None:
        self.heard.append(self.name)
        if self.name == "broken":
            raise ConnectionResetError


def many(doorman: Doorman, heard: list[str], count: int) -> list[Visitor]:
    """So many machines that stand in line, by their numbers."""
    machines = [Visitor(str(number), heard) for number in range(count)]
    assert [doorman.ask(machine) for machine in machines] == [None] * count
    return machines


async def until_empty(heard: list[str], count: int) -> None:
    """So many were let in."""
    async with asyncio.timeout(60):
        while len(heard) < count:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_people_are_answered_while_machines_stand_in_line() -> None:
    heard: list[str] = []
    many(Doorman(), heard, 10 * AT_ONCE)
    for step in range(5):
        await asyncio.sleep(0)
        heard.append(f"step {step} of a request")
    await until_empty(heard, 10 * AT_ONCE + 5)
    steps = [place for place, name in enumerate(heard) if name.startswith("step")]
    assert all(later - earlier <= AT_ONCE + 1 for earlier, later in zip([-1, *steps], steps, strict=False))
    assert [name for name in heard if name.isdigit()] == [str(number) for number in range(10 * AT_ONCE)]


async def test_who_hangs_up_is_not_let_in() -> None:
    doorman, heard = Doorman(), list[str]()
    only, *_ = many(doorman, heard, 1)
    doorman.forget(only)
    gone, *_ = many(doorman, heard, 2 * AT_ONCE)
    doorman.forget(gone)
    await until_empty(heard, 2 * AT_ONCE - 1)
    assert heard == [str(number) for number in range(1, 2 * AT_ONCE)]


async def test_one_that_fails_at_the_door_keeps_nobody_out() -> None:
    doorman, heard = Doorman(), list[str]()
    failed: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failed.append(context["exception"]))
    doorman.ask(Visitor("broken", heard))
    many(doorman, heard, 2)
    await until_empty(heard, 3)
    assert [type(error) for error in failed] == [ConnectionResetError]


async def test_who_finds_the_line_too_long_is_told_when_there_is_room_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr("allocator.doorman.FIRST_GUESS_SECONDS", 1.9)
    monkeypatch.setattr("allocator.doorman.LONGEST_SECONDS", 5.0)
    doorman, heard = Doorman(), list[str]()
    many(doorman, heard, 3)
    told = [doorman.ask(Visitor("late", heard)) for _ in range(40)]
    assert told[:3] == [8, 10, 12]
    assert told[-1] == MOST_SECONDS
    await until_empty(heard, 3)
    many(doorman, heard, 1)
