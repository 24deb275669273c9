"""What is known of the use of a machine: input on its desktops, and the work of what runs in its session."""

import asyncio
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest

from client.command import JobCommand
from client.executor import OwnExecutor
from client.idle import Idle
from client.protocol import Orders
from client.runner import Programs
from client.session import Account, Session
from client.usage import Usage
from client.x11 import SOCKETS
from tests.support import LIMIT_SECONDS
from tests.support.helper import Helped, helped_machine
from tests.support.machine import reached, reached_by

DESKTOP = """
import os, struct
parts = (b"", b"{display}", b"MIT-MAGIC-COOKIE-1", bytes(range(16)))
entry = b"".join(struct.pack(">H", len(part)) + part for part in parts)
open(".Xauthority", "wb").write(bytes([1, 0]) + b"".join([struct.pack(">H", 0)] * 4) + bytes([255, 255]) + entry)
os.execvp("Xvfb", ["Xvfb", ":{display}", "-auth", ".Xauthority", "-nolisten", "tcp", "-noreset", *{options}])
"""
"""An X server as Chrome Remote Desktop starts one: only who has the cookie is let in."""

CROWD = """
import os, select, socket, sys
begun, beginning = os.pipe()
displays = {}
for display in sys.argv[1:]:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind("/tmp/.X11-unix/X" + display)
    listener.listen()
    displays[listener] = display
    if not os.fork():
        os.execvp("sh", ["Xserver", "-c", "sleep 600; :", ":" + display])
os.close(beginning)
os.read(begun, 1)
open("asked", "x").close()
while True:
    for listener in select.select(displays, [], [])[0]:
        with open("asked", "a") as asked:
            print(displays[listener], file=asked)
        listener.accept()
"""
"""What look like X servers, and note that they were spoken to."""

NESTED = """
import os, sys
from pathlib import Path
from client.processes import adopt_orphans
from client.session import Session
from client.usage import usage_of
adopt_orphans()
held, let_go = os.pipe()
begun, told = os.pipe()
deeper = 150
if not os.fork():
    os.close(let_go)
    while deeper and not os.fork():
        deeper -= 1
    if not deeper:
        os.write(told, b"x")
    os.read(held, 1)
    os._exit(0)
os.read(begun, 1)
sys.setrecursionlimit(100)
print(usage_of(Session(Path("/nowhere"))).untouched_seconds)
"""
"""Each process of a session the child of another, more of them than Python calls itself."""


@pytest.fixture
def machine() -> Iterator[Helped]:
    with helped_machine() as machine:
        yield machine


async def usage(machine: Helped) -> Usage:
    found = await machine.executor.usage()
    assert found is not None
    return found


@asynccontextmanager
async def running(machine: Helped, *argv: str) -> AsyncIterator[None]:
    started = await machine.executor.start(JobCommand(argv), name="vm-1", limit_seconds=600)
    try:
        yield
    finally:
        await started.end()


@asynccontextmanager
async def desktop(machine: Helped, display: int, *options: str) -> AsyncIterator[None]:
    if shutil.which("Xvfb") is None or shutil.which("xdotool") is None:
        pytest.skip("there is no Xvfb, or no xdotool to type with")
    program = DESKTOP.format(display=display, options=options)
    async with running(machine, "python3", "-ISc", program):
        await reached_by(lambda: _is_up(machine, display))
        yield


async def _is_up(machine: Helped, display: int) -> bool:
    return await machine.executor.usage() is not None and Path(f"{SOCKETS}/X{display}").exists()


async def test_input_on_the_desktop_is_use(machine: Helped, display: int) -> None:
    async with desktop(machine, display):

        async def is_left() -> bool:
            return ((await usage(machine)).untouched_seconds or 0.0) > before

        async def is_touched() -> bool:
            """Its last input came after the first of ours was sent, however long the way there and back takes."""
            await move_the_mouse(machine, display, str(next(places)))
            asked = time.monotonic()
            untouched = (await usage(machine)).untouched_seconds
            return untouched is not None and asked - untouched > begun

        before = (await usage(machine)).untouched_seconds or 0.0
        await reached_by(is_left)
        begun, places = time.monotonic(), count(7)
        await reached_by(is_touched)


async def move_the_mouse(machine: Helped, display: int, place: str) -> None:
    """Input on the desktop, from nobody in the session."""
    environment = {"DISPLAY": f":{display}", "XAUTHORITY": str(machine.session.directory / ".Xauthority")}
    moving = await asyncio.create_subprocess_exec("xdotool", "mousemove", place, "7", env=os.environ | environment)
    assert await moving.wait() == 0


async def test_a_desktop_that_cannot_tell_is_not_said_to_be_untouched(machine: Helped, display: int) -> None:
    async with desktop(machine, display, "-extension", "MIT-SCREEN-SAVER"):
        assert (await usage(machine)).untouched_seconds is None


async def test_what_works_takes_time_of_the_processor_and_what_sleeps_does_not(machine: Helped) -> None:
    async with running(machine, "python3", "-ISc", "import time; time.sleep(600)"):
        before = -1.0

        async def sleeps() -> bool:
            nonlocal before
            then, before = before, (await usage(machine)).processor_seconds
            return before == then

        await reached_by(sleeps)
    async with running(machine, "sh", "-c", "while :; do true; done"):

        async def has_worked() -> bool:
            return (await usage(machine)).processor_seconds > before + 0.5

        await reached_by(has_worked)


async def test_where_nothing_runs_nothing_is_used(machine: Helped) -> None:
    assert await usage(machine) == Usage(0.0, None)


@contextmanager
def no_more_files() -> Iterator[None]:
    """Nothing can be opened by this process meanwhile."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def knock(display: str) -> None:
    """Speak to one of the crowd; return once it has noted that, and hung up."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(LIMIT_SECONDS)
        connection.connect(f"{SOCKETS}/X{display}")
        assert connection.recv(1) == b""


async def test_of_many_desktops_four_are_asked(machine: Helped, display: int) -> None:
    os.makedirs(SOCKETS, exist_ok=True)
    with suppress(PermissionError):
        os.chmod(SOCKETS, 0o1777)
    crowd = [str(display + number) for number in range(6)]
    asked = machine.session.directory / "asked"
    try:
        async with running(machine, "python3", "-ISc", CROWD, *crowd):
            await reached(asked.exists)
            assert (await usage(machine)).untouched_seconds is None
            for each in crowd:
                knock(each)  # so that whatever came before is noted
            assert len(asked.read_text().split()) == 4 + len(crowd)
    finally:
        for each in crowd:
            Path(f"{SOCKETS}/X{each}").unlink(missing_ok=True)


def test_no_number_of_nested_shells_is_too_many() -> None:
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("None\n", "")


async def test_where_the_system_keeps_the_client_from_looking_nothing_is_known(tmp_path: Path) -> None:
    session = Session(tmp_path, Account("nobody", 65_534, 65_534, ()))
    idle = Idle(OwnExecutor(session, Programs()))
    idle.note(Orders(1, "vm-1", "in-use", 1, uuid4(), "active", "job", 1.0))
    await idle.look()
    assert idle.seconds == 0
    with no_more_files():
        await idle.look()
    assert idle.seconds is None
