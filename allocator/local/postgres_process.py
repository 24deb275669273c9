"""One PostgreSQL as a process: its state, its port, how it is stopped and whom it does not outlive."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from allocator.local import UpFailed

STOP_SECONDS = 20.0


def postmaster(data: Path) -> tuple[int | None, str]:
    """Process id and state as postmaster.pid tells them: the file's first and eighth line."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else ""
    except (FileNotFoundError, ValueError, IndexError):
        return None, ""


def processes_named(name: str) -> list[int]:
    """The server processes with `name` in their command line; PostgreSQL writes its cluster_name there."""
    if not Path("/proc/self").exists():
        listed = subprocess.run(["ps", "-axo", "pid=,args="], capture_output=True, text=True).stdout
        return [int(line.split()[0]) for line in listed.splitlines() if name in line]
    return [int(entry.name) for entry in Path("/proc").glob("[0-9]*") if name in _command_line(int(entry.name))]


def is_somebody_else(pid: int) -> bool:
    """Whether `pid`, once a PostgreSQL's, now belongs to a process that is none. PostgreSQL itself cannot tell."""
    program = _command_line(pid).partition("\0")[0].partition(":")[0]
    return program != "" and Path(program).name not in ("postgres", "postmaster")


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:  # it has ended
        return ""


def ask_to_stop(pid: int, orphan: bool) -> None:
    """A fast shutdown of a server; for an orphan of one that was killed there is nothing left to shut down."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL if orphan else signal.SIGINT)


def free_port(wanted: int) -> int:
    """`wanted` if nobody listens there, else one that the kernel picks."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@asynccontextmanager
async def limited(what: str, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise UpFailed(f"{what} after {seconds:.0f} s: see postgres.log in its directory.") from error


async def stop(process: asyncio.subprocess.Process) -> None:
    """Fast shutdown; if that takes too long, an immediate one, from which the next start recovers."""
    for sign in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
        if process.returncode is not None:
            return
        process.send_signal(sign)
        try:
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        except TimeoutError:
            continue
