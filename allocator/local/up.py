"""`lablink up`: PostgreSQL, the allocator and real clients as processes on this machine, until somebody stops them."""

import asyncio
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Awaitable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from allocator.local import UpFailed
from allocator.local.data_directory import claimed, nearest
from allocator.local.installation import Installation, listening, load
from allocator.local.machines import Machines
from allocator.local.postgres import kept_server
from allocator.local.progress import Progress
from allocator.local.readiness import all_seen, note_boots, page_ready
from allocator.local.scale import LocalActuator
from allocator.local.supervisor import kept_running


@dataclass(frozen=True, slots=True)
class Plan:
    """What `lablink up` was asked for."""

    data_dir: Path
    vms: int
    port: int
    most: int | None = None
    """How many machines it may become; None: it stays as it is."""
    settings: Sequence[str] = ()
    """What differs from the usual, `key=value` each."""


async def up(plan: Plan, progress: Progress) -> None:
    """Start everything, say when it is ready, and keep it running until Ctrl-C, SIGTERM or SIGHUP.

    Raises UpFailed with a sentence when it cannot start. A second signal makes the end quicker.
    """
    hurry = asyncio.Event()
    with claimed(plan.data_dir), listening(plan.port) as listener:
        await _until_signalled(Up(plan, progress, hurry, listener).run(), progress, hurry)


@dataclass(frozen=True, slots=True)
class Up:
    """One run of `lablink up`: what is started first is stopped last."""

    plan: Plan
    progress: Progress
    hurry: asyncio.Event
    listener: socket.socket

    async def run(self) -> None:
        """Start and keep running until cancelled."""
        began, say = time.monotonic(), self.progress.say
        loading = asyncio.create_task(asyncio.to_thread(load))
        async with kept_server(self.plan.data_dir, self.plan.most or self.plan.vms, say, self.hurry) as coming:
            with self.progress.step("PostgreSQL") as step:
                server = await coming
                step.detail = f"version {server.version} on port {server.port}"
            installation = Installation(self.plan.data_dir, self.plan.port, server, self.plan.settings)
            with explained(self.plan.data_dir):
                await self._prepare(installation, loading)
                machines = Machines.of(installation)
                hostnames = await machines.settle(self.plan.vms)
                allocator, clients = installation.allocator(self.listener), machines.clients(hostnames)
            async with kept_running([allocator], say, self.hurry), kept_running(clients, say, self.hurry) as crew:
                with explained(self.plan.data_dir):
                    await self._ready(installation, hostnames)
                self._present(installation, time.monotonic() - began)
                if installation.scaled():
                    await LocalActuator(installation, machines, crew, say).run()
                await asyncio.Event().wait()

    async def _prepare(self, installation: Installation, loading: Awaitable[None]) -> None:
        installation.write_settings()
        with self.progress.step("Database") as step:
            await loading
            step.detail = f"version {await installation.prepare_database()}"

    async def _ready(self, installation: Installation, hostnames: list[str]) -> None:
        with self.progress.step("Allocator") as step:
            await page_ready(installation.port)
            step.detail = installation.url
        with self.progress.step("Machines") as step:
            async with installation.owner() as connection:
                step.detail = await all_seen(connection, hostnames)
                await note_boots(connection, hostnames)

    def _present(self, installation: Installation, seconds: float) -> None:
        self.progress.show(
            f"Ready in {seconds:.1f} s.",
            {
                "Page": installation.url,
                "psql": _typed(self.plan, "db shell"),
                "Stop": "Ctrl-C; the data stays for the next time",
            },
        )


@contextmanager
def explained(data_dir: Path) -> Iterator[None]:
    """What the disk or the database refuses inside the block becomes UpFailed."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, ConnectionError, TimeoutError) as error:
        why = (str(error) or type(error).__name__).splitlines()[0]  # what follows may quote a row
        raise UpFailed(f"The database refused or did not answer ({why}): see {data_dir / 'postgres.log'}.") from error
    except OSError as error:
        where = error.filename or data_dir
        raise UpFailed(f"{where} cannot be used ({error.strerror}): mend that, or give another --data-dir.") from error


def _typed(plan: Plan, command: str) -> str:
    """How a `lablink` command is typed here to mean this installation."""
    lablink = "lablink" if shutil.which("lablink") else min(sys.argv[0], os.path.relpath(sys.argv[0]), key=len)
    place = "" if nearest() == plan.data_dir else f" --data-dir {shlex.quote(str(plan.data_dir))}"
    return f"{lablink} {command}{place}"


async def _until_signalled(work: Coroutine[None, None, None], progress: Progress, hurry: asyncio.Event) -> None:
    """Run `work` until it ends or a signal asks for its end; what it opened is closed either way."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for sign in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(sign, lambda: (hurry if stop.is_set() else stop).set())
    task, stopped = asyncio.create_task(work), asyncio.create_task(stop.wait())
    await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    if task.done():
        return task.result()
    progress.say("Stopping; once more makes it quicker.")
    with progress.step("Shutdown"), suppress(asyncio.CancelledError):
        task.cancel()
        await task
