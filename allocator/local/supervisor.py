"""Keeps the child processes of `lablink up` alive, and ends them in order."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

Say = Callable[[str], None]

FIRST_PAUSE = 0.2
LONGEST_PAUSE = 10.0
STEADY_SECONDS = 30.0
"""A child that ran this long is forgiven its earlier deaths."""

LOG_BYTES = 10_000_000

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONWARNINGS")
"""What children see of the environment: no settings and no secrets that were meant for something else."""


@dataclass
class BackOff:
    """How long to wait before a child is started again: twice as long after each early death."""

    pause: float = FIRST_PAUSE

    def after(self, ran_seconds: float) -> float:
        """The pause after a run of `ran_seconds`."""
        if ran_seconds >= STEADY_SECONDS:
            self.pause = FIRST_PAUSE
        pause, self.pause = self.pause, min(2 * self.pause, LONGEST_PAUSE)
        return pause


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a child that ended: whether it is started again, and what the person is told."""

    again: bool
    sentence: str


@dataclass
class Child:
    """A program that runs as long as the block of `kept_running` does. `user` is a number that root becomes for it."""

    name: str
    command: Sequence[str]
    log: Path
    environment: Mapping[str, str]
    user: int | None = None
    sockets: Sequence[int] = ()
    judge: Callable[[int], Awaitable[Verdict]] | None = None
    process: asyncio.subprocess.Process | None = field(default=None, init=False)

    async def start(self) -> asyncio.subprocess.Process:
        """Start the program once, in a session of its own, so that Ctrl-C reaches only its supervisor."""
        with _opened(self.log) as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "allocator.local.child", str(os.getpid()), str(self.user or ""), *self.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(self.environment),
                pass_fds=self.sockets,
                start_new_session=True,
            )
        return self.process

    async def keep_running(self, say: Say) -> None:
        """Start the program, and again whenever it ends and may, until cancelled; says so each time."""
        back_off = BackOff()
        while True:
            began = time.monotonic()
            code = await self._once(say)
            pause = back_off.after(time.monotonic() - began)
            verdict = await self.judge(code) if self.judge else self.usual_verdict(code)
            say(verdict.sentence)
            if not verdict.again:
                return
            await asyncio.sleep(pause)

    def usual_verdict(self, code: int) -> Verdict:
        """What becomes of most: they are started again."""
        return Verdict(True, f"{self.name} {how_it_ended(code)}; starting it again. Its log: {self.log}")

    async def _once(self, say: Say) -> int:
        try:
            return await (await self.start()).wait()
        except OSError as error:  # no memory, no room for the log: worth another try
            say(f"{self.name} cannot be started: {error}")
            return os.EX_OSERR

    async def stop(self, hurry: asyncio.Event, grace_seconds: float) -> None:
        """Ask the program to end; make it end when `grace_seconds` have passed or there is a hurry."""
        if self.process is None or self.process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            self.process.terminate()
            self.process.send_signal(signal.SIGCONT)  # one that was frozen hears nothing until it goes on
        ended = asyncio.create_task(self.process.wait())
        if not await ended_before(ended, hurry, grace_seconds):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
        await ended


class Crew:
    """Children that run, each kept running by a task of its own."""

    def __init__(self, say: Say, hurry: asyncio.Event, grace_seconds: float) -> None:
        self._say = say
        self._hurry = hurry
        self._grace_seconds = grace_seconds
        self._tasks: dict[str, tuple[Child, asyncio.Task[None]]] = {}

    @property
    def names(self) -> list[str]:
        """Who is in it."""
        return list(self._tasks)

    def start(self, children: Iterable[Child]) -> None:
        """Have these run, too."""
        for child in children:
            task = asyncio.create_task(child.keep_running(self._say), name=child.name)
            self._tasks[child.name] = child, task

    async def stop(self, names: Iterable[str]) -> None:
        """Return when none of these runs any more; they are stopped side by side."""
        leaving = {name: self._tasks[name] for name in names if name in self._tasks}
        for _, task in leaving.values():
            task.cancel()
        await asyncio.gather(*(task for _, task in leaving.values()), return_exceptions=True)
        await asyncio.gather(*(child.stop(self._hurry, self._grace_seconds) for child, _ in leaving.values()))
        for name in leaving:  # not before: whoever is cancelled here leaves them to the end of the block
            del self._tasks[name]


@asynccontextmanager
async def kept_running(
    children: Sequence[Child], say: Say, hurry: asyncio.Event, *, grace_seconds: float = 8.0
) -> AsyncIterator[Crew]:
    """All `children` running for the time of the block, and whoever comes to them, stopped at its end."""
    crew = Crew(say, hurry, grace_seconds)
    crew.start(children)
    try:
        yield crew
    finally:
        await crew.stop(crew.names)


async def ended_before(ended: "asyncio.Task[int]", hurry: asyncio.Event, seconds: float) -> bool:
    """True when `ended` is done before `seconds` have passed and before somebody is in a hurry."""
    hurried = asyncio.create_task(hurry.wait())
    try:
        await asyncio.wait((ended, hurried), timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        hurried.cancel()
    return ended.done()


def environment(**more: str) -> dict[str, str]:
    """The environment of a child."""
    return {name: os.environ[name] for name in PASSED_ON if name in os.environ} | more


def how_it_ended(code: int) -> str:
    """An exit code in words."""
    if code < 0:
        named = {each.value: each.name for each in signal.Signals}  # most real-time signals have no name
        return f"was killed ({named.get(-code, f'signal {-code}')})"
    return f"ended with exit code {code}"


def _opened(log: Path) -> BinaryIO:
    """The log to append to; a long one is put aside first, so that two files is all there ever is."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    return log.open("ab")
