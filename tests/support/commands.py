"""Commands to run for real: programs that misbehave, and how to see that they are gone."""

import asyncio
import os
import select
import sys
from contextlib import suppress
from pathlib import Path

from client.command import DesktopCommand, JobCommand
from client.runner import Finished, Programs, start
from client.session import Session
from tests.support import LIMIT_SECONDS

URL = "https://remotedesktop.google.com/_/oauthredirect"
PATH = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); open('ready', 'w').close(); time.sleep(600)"
DAEMON = """
import os, sys, time
reading, writing = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        sys.stdout.write(f"{os.getpid()}\\n")
        sys.stdout.flush()
        os.write(writing, b"x")
        time.sleep(600)
    os._exit(0)
os.read(reading, 1)
"""
CHAIN = """
import ctypes, os
fork, end = ctypes.PyDLL(None).fork, ctypes.PyDLL(None)._exit
alive = os.open({fifo!r}, os.O_WRONLY)
if fork() == 0:
    os.setsid()
    for _ in range(12_000):
        if fork():
            end(0)
"""
"""A process that nobody sees twice: each forks and ends at once. A pipe is open for writing as long as one is there."""


def fake_start_host(directory: Path, body: str) -> Programs:
    path = directory / "start-host"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return Programs(start_host=str(path), path=PATH)


async def run(session: Session, *argv: str) -> Finished:
    running = await start(JobCommand(argv), session, Programs(path=PATH), name="vm-1")
    async with asyncio.timeout(LIMIT_SECONDS):
        return await running.wait()


async def run_desktop(
    session: Session, programs: Programs, command: DesktopCommand, limit: float = LIMIT_SECONDS
) -> Finished:
    running = await start(command, session, programs, name="vm-1", limit_seconds=limit)
    async with asyncio.timeout(limit + LIMIT_SECONDS):
        return await running.wait()


def ended(pid: int) -> bool:
    """Whether the process ends."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([descriptor], [], [], LIMIT_SECONDS)[0])
    finally:
        os.close(descriptor)


def alive(pid: int) -> bool:
    os.kill(pid, 0)
    return True


def opened_fifo(path: Path) -> int:
    """The reading end of a new pipe that every account may open for writing."""
    os.mkfifo(path)
    path.chmod(0o666)
    return os.open(path, os.O_RDONLY | os.O_NONBLOCK)


def is_closed(reader: int) -> bool:
    """Whether nobody has the other end of a pipe open."""
    with suppress(BlockingIOError):
        return os.read(reader, 1) == b""
    return False
