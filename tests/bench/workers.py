"""Child processes of a run: they say a word when they are ready, work until their input ends, then tell what they saw.

A worker whose parent is gone finds its input at an end and stops too, so that nothing outlives a run.
"""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

READY_SECONDS = 60.0
STOP_SECONDS = 20.0
LINE_BYTES = 64 * 1024 * 1024
ROOT = Path(__file__).parents[2]


class WorkerFailed(Exception):
    """A child process ended early or hangs; the message has the last of what it said."""


@dataclass(frozen=True, slots=True)
class Worker:
    """A child; `log` is where it complains."""

    process: asyncio.subprocess.Process
    log: Path

    async def ready(self) -> Any:
        """Wait until it is ready; returns the word it said."""
        return await self.word(READY_SECONDS)

    async def finish(self) -> Any:
        """End the child's input; returns what it saw."""
        assert self.process.stdin
        self.process.stdin.close()
        return await self.word(STOP_SECONDS)

    async def word(self, seconds: float) -> Any:
        """The next word it says. Raises WorkerFailed."""
        assert self.process.stdout
        try:
            async with asyncio.timeout(seconds):
                line = await self.process.stdout.readline()
        except TimeoutError:
            raise WorkerFailed(f"A process of the bench said nothing for {seconds:.0f} s: {self._last_words}") from None
        if not line:
            raise WorkerFailed(f"A process of the bench ended early: {self._last_words}")
        return json.loads(line)

    @property
    def _last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]


@asynccontextmanager
async def worker(
    module: str, task: dict[str, Any], log: Path, python: str | Path = sys.executable
) -> AsyncIterator[Worker]:
    """A child that runs `python -m module`, given `task`; killed at the end of the block if it still runs."""
    with open(log, "ab") as errors:
        process = await asyncio.create_subprocess_exec(
            *(python, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            cwd=ROOT,
            env={name: value for name, value in os.environ.items() if not name.startswith("PG")},
            start_new_session=True,
            limit=LINE_BYTES,
        )
    assert process.stdin
    try:
        process.stdin.write(json.dumps(task).encode() + b"\n")
        yield Worker(process, log)
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@asynccontextmanager
async def workers(module: str, tasks: Iterable[dict[str, Any]], log: Path) -> AsyncIterator[list[Worker]]:
    """A child for every task, all of them ready."""
    async with AsyncExitStack() as opened:
        children = [await opened.enter_async_context(worker(module, task, log)) for task in tasks]
        await asyncio.gather(*(child.ready() for child in children))
        yield children


def dealt(names: Sequence[str], size: int) -> list[Sequence[str]]:
    """The names in groups of at most `size`."""
    return [names[begin : begin + size] for begin in range(0, len(names), size)]


def be_worker(work: Callable[[dict[str, Any], "Ready", asyncio.Event], Awaitable[Any]]) -> None:
    """In the child: do `work(task, ready, stop)`, then tell what it returns."""
    asyncio.run(_work(work))


Ready = Callable[[Any], None]


async def _work(work: Callable[[dict[str, Any], Ready, asyncio.Event], Awaitable[Any]]) -> None:
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    task = json.loads(await reader.readline())
    end = asyncio.create_task(_until_end(reader, stop))
    _say(await work(task, _say, stop))
    await end


async def _until_end(reader: asyncio.StreamReader, stop: asyncio.Event) -> None:
    await reader.read()
    stop.set()
    asyncio.get_running_loop().call_later(STOP_SECONDS, os._exit, 1)  # a thread that waits holds nothing up


def _say(word: Any) -> None:
    with suppress(BrokenPipeError):
        print(json.dumps(word), flush=True)
