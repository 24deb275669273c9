"""The service as people meet it: `lablink serve`, a process of its own, on a database of the bench's server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from allocator.bootstrap import DATABASE
from allocator.local.installation import Installation, listening
from allocator.local.readiness import page_ready
from allocator.local.supervisor import Child
from tests.bench.ground import Ground
from tests.bench.options import PROGRAM
from tests.bench.workers import STOP_SECONDS, WorkerFailed


@asynccontextmanager
async def serving(own: Ground, free_hosts: int = 0) -> AsyncIterator[Installation]:
    """The service, ready, on a fresh database with so many free machines whose clients nobody runs."""
    await own.clone(DATABASE)
    if free_hosts:
        await own.fill(DATABASE, free_hosts)
    with listening(0) as listener:
        programs = (f"pool.programs=[{PROGRAM}]",)
        installation = Installation(own.directory, listener.getsockname()[1], own.server, programs)
        installation.write_settings()
        async with _running(installation.allocator(listener), installation.port):
            yield installation


@asynccontextmanager
async def _running(service: Child, port: int) -> AsyncIterator[None]:
    """The service, ready, for the time of the block. Raises WorkerFailed when it ends instead."""
    process = await service.start()
    try:
        ended, ready = asyncio.ensure_future(process.wait()), asyncio.ensure_future(page_ready(port))
        await asyncio.wait({ended, ready}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ready.cancel()
            raise WorkerFailed(f"lablink serve ended early: {service.log.read_text(errors='replace')[-2000:]}")
        await ready
        yield
    finally:
        await service.stop(asyncio.Event(), STOP_SECONDS)
