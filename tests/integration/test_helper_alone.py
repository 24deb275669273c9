"""One helper at a time changes the session: what a dead client had begun does not meet what the next one asks for."""

import asyncio
import fcntl
import json
import os
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio

from client import helper
from client.executor import OwnExecutor
from client.helper import attend
from client.runner import Programs
from client.session import Account, Session
from tests.support import LIMIT_SECONDS
from tests.support.helper import UID
from tests.support.machine import reached

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


JOB = {"kind": "job", "command": {"argv": ["true"]}, "name": "vm-1", "limit_seconds": 9}


class Slow(tuple[str, ...]):
    """Shared directories that take as long to look through as somebody has the other end of a pipe open."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        Path(super().__getitem__(0)).read_bytes()
        return iter(())


@dataclass(slots=True)
class Asked:
    """A client's connection to a helper in this process, and the task that is the helper."""

    client: socket.socket
    helper: asyncio.Task[None]

    async def answer(self) -> dict[str, object]:
        """All that the helper says."""
        async with asyncio.timeout(LIMIT_SECONDS):
            await self.helper
        given: dict[str, object] = json.loads(self.client.recv(65_536))
        return given


@dataclass(slots=True)
class Place:
    """A machine whose helpers are tasks of this process."""

    session: Session
    open: ExitStack

    def ask(self, what: str, session: Session | None = None) -> Asked:
        """Begin an errand."""
        client, theirs = socket.socketpair()
        self.open.enter_context(client)
        client.sendall(json.dumps(JOB | {"do": what}).encode() + b"\n")
        executor = OwnExecutor(session or self.session, Programs())
        return Asked(client, asyncio.create_task(attend(theirs, os.geteuid(), executor)))

    def looks(self) -> int:
        """How many have the directory open in which the session is."""
        links = (f"/proc/self/fd/{each}" for each in os.listdir("/proc/self/fd"))
        return sum(os.path.realpath(link) == str(self.session.directory.parent) for link in links)


@pytest_asyncio.fixture
async def place() -> AsyncIterator[Place]:
    root = Path(tempfile.mkdtemp())
    root.chmod(0o711)
    account = Account("lablink-test", UID, UID, ()) if os.geteuid() == 0 else None
    with ExitStack() as opened:
        yield Place(Session(root / "session", account, ()), opened)
    shutil.rmtree(root)


async def test_a_wipe_waits_for_one_that_a_dead_client_had_begun_however_long_that_takes(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_TURN_LIMIT_SECONDS", 0)
    if place.session.account is None:
        pytest.skip("needs root: only an account's directories are looked through")
    pipe = place.session.directory.parent / "pipe"
    os.mkfifo(pipe)
    orphan = place.ask("wipe", replace(place.session, shared=Slow((str(pipe),))))
    with await asyncio.to_thread(pipe.open, "wb"):  # it has begun
        orphan.client.close()
        wipe = place.ask("wipe")
        await reached(lambda: wipe.helper.done() or place.looks() == 2)
        assert not wipe.helper.done()

    assert await wipe.answer() == {"done": True}
    await orphan.helper


@pytest.mark.parametrize("what", ["kill", "start"])
async def test_a_client_hears_of_a_helper_that_goes_on_and_on(
    place: Place, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    monkeypatch.setattr(helper, "_TURN_LIMIT_SECONDS", 0)
    directory = os.open(place.session.directory.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        assert "An earlier helper is still at work" in str((await place.ask(what).answer())["trouble"])
    finally:
        os.close(directory)


@pytest.mark.parametrize("what", ["wipe", "kill", "start"])
async def test_a_helper_whose_client_left_while_it_waited_does_nothing_more(place: Place, what: str) -> None:
    place.session.open()
    directory = os.open(place.session.directory.parent, os.O_RDONLY)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        late = place.ask(what)
        await reached(lambda: late.helper.done() or place.looks() == 2)
        assert not late.helper.done()
        late.client.close()
        async with asyncio.timeout(LIMIT_SECONDS):
            await late.helper
    finally:
        os.close(directory)
    assert place.session.directory.exists()
