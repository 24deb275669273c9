"""Keeps the PostgreSQL of `lablink up` running: started again when it dies, stopped last."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from allocator.local.binaries import ServerFailed
from allocator.local.children import BackOff, Say, how_it_ended
from allocator.local.postgres import Server, running_server


@asynccontextmanager
async def kept_server(
    directory: Path, clients: int, say: Say, hurry: asyncio.Event
) -> AsyncIterator["asyncio.Future[Server]"]:
    """A server that comes up beside the block and lives as long as it; the future is the server, once it accepts.

    The future fails with ServerFailed when the first start does; later ones are tried again.
    """
    keeper = _Keeper(directory, clients, say, hurry)
    task = asyncio.create_task(keeper.run())
    try:
        yield keeper.first
    finally:
        keeper.stop.set()
        await task
        if keeper.first.done() and not keeper.first.cancelled():
            keeper.first.exception()  # whoever waited for it has been told


@dataclass(frozen=True, slots=True)
class _Keeper:
    directory: Path
    clients: int
    say: Say
    hurry: asyncio.Event
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    first: "asyncio.Future[Server]" = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    async def run(self) -> None:
        """Start the server, and again whenever it ends, until asked to stop."""
        back_off = BackOff()
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                await self._run_once()
            except ServerFailed as failure:
                if not self.first.done():
                    return self.first.set_exception(failure)
                self.say(str(failure))
            with suppress(TimeoutError):
                await asyncio.wait_for(self.stop.wait(), back_off.after(time.monotonic() - began))

    async def _run_once(self) -> None:
        quitters: list[asyncio.Task[None]] = []
        try:
            async with running_server(self.directory, clients=self.clients) as server:
                quitters.append(asyncio.create_task(self._quit_in_a_hurry(server.process)))
                if not self.first.done():
                    self.first.set_result(server)
                await self._until_it_ends(server.process)
        finally:
            for quitter in quitters:
                quitter.cancel()

    async def _until_it_ends(self, process: asyncio.subprocess.Process) -> None:
        """Return when the server died by itself, having said so, or when it is to be stopped."""
        ended, stopped = asyncio.create_task(process.wait()), asyncio.create_task(self.stop.wait())
        await asyncio.wait((ended, stopped), return_when=asyncio.FIRST_COMPLETED)
        if not self.stop.is_set():
            log = self.directory / "postgres.log"
            self.say(f"PostgreSQL {how_it_ended(ended.result())}; starting it again. Its log: {log}")
        for task in (ended, stopped):
            task.cancel()

    async def _quit_in_a_hurry(self, process: asyncio.subprocess.Process) -> None:
        """An immediate shutdown, from which the next start recovers, as soon as somebody does not want to wait."""
        await self.stop.wait()
        await self.hurry.wait()
        for sign in (signal.SIGQUIT, signal.SIGCONT):
            with suppress(ProcessLookupError):
                process.send_signal(sign)
