"""Keeps the PostgreSQL of `lablink up` running: started again when it dies, stopped last."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
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
    stop = asyncio.Event()
    first: asyncio.Future[Server] = asyncio.get_running_loop().create_future()
    keeper = asyncio.create_task(_keep(directory, clients, say, first, stop, hurry))
    try:
        yield first
    finally:
        stop.set()
        await keeper
        if first.done() and not first.cancelled():
            first.exception()  # whoever waits for it has been told


async def _keep(
    directory: Path, clients: int, say: Say, first: "asyncio.Future[Server]", stop: asyncio.Event, hurry: asyncio.Event
) -> None:
    back_off = BackOff()
    while not stop.is_set():
        began = time.monotonic()
        try:
            async with running_server(directory, clients=clients) as server:
                if not first.done():
                    first.set_result(server)
                code = await _ended(server.process, stop, hurry)
            if code is not None:
                say(f"PostgreSQL {how_it_ended(code)}; starting it again. Its log: {directory / 'postgres.log'}")
        except ServerFailed as failure:
            if not first.done():
                return first.set_exception(failure)
            say(str(failure))
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), back_off.after(time.monotonic() - began))


async def _ended(process: asyncio.subprocess.Process, stop: asyncio.Event, hurry: asyncio.Event) -> int | None:
    """The exit code once the server died by itself; None once it is to be stopped, at once if there is a hurry."""
    waits = {asyncio.create_task(process.wait()), asyncio.create_task(stop.wait())}
    _, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    if stop.is_set() and hurry.is_set() and process.returncode is None:
        process.send_signal(signal.SIGQUIT)
    return None if stop.is_set() else process.returncode
