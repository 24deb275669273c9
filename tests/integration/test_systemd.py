"""systemd is told that a client serves, and as long as it gets on: a client that hangs is started anew."""

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from client.delegate import Delegate
from client.systemd import tell_systemd
from tests.support.database import Database
from tests.support.machine import Machine, Pool, reached


class Supervisor:
    """systemd's end of the notifications."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)
        self.told: list[str] = []

    def heard(self) -> list[str]:
        """All that was said so far."""
        try:
            while True:
                self.told += self._socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return self.told

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    supervisor = Supervisor(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    yield supervisor
    supervisor.close()


@pytest.mark.postgresql
async def test_a_client_is_ready_once_it_was_heard_and_says_that_it_lives(
    database: Database, tmp_path: Path, supervisor: Supervisor
) -> None:
    pool = await Pool.of(database)
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    async with machine.serving():
        await reached(lambda: supervisor.heard()[:2] == ["READY=1", "WATCHDOG=1"])
        looks = len(supervisor.told)
        await pool.owner.execute("UPDATE vms SET status = 'failed' WHERE id = $1", machine.vm.id)
        await reached(lambda: len(supervisor.heard()) > looks)

    assert supervisor.told.count("READY=1") == 1


@pytest.mark.postgresql
async def test_a_client_whose_database_is_away_lives_and_is_not_ready(
    database: Database, tmp_path: Path, supervisor: Supervisor
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm", port=1)
    async with machine.serving():
        await reached(lambda: len(supervisor.heard()) > 1)

    assert set(supervisor.told) == {"WATCHDOG=1"}


@pytest.mark.postgresql
async def test_a_client_that_hangs_does_not_say_that_it_lives(
    database: Database, tmp_path: Path, supervisor: Supervisor
) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    with socket.socket(socket.AF_UNIX) as helper:
        helper.bind(str(tmp_path / "helper.sock"))
        helper.listen()
        helper.setblocking(False)
        machine.executor = Delegate(tmp_path / "helper.sock")
        async with machine.serving():
            connection, _ = await asyncio.get_running_loop().sock_accept(helper)
            assert await asyncio.get_running_loop().sock_recv(connection, 100) == b'{"do": "check", "lent": true}\n'
            connection.close()

    assert supervisor.heard() == []


@pytest.mark.postgresql
async def test_a_client_that_is_stopped_says_so(database: Database, tmp_path: Path, supervisor: Supervisor) -> None:
    machine = Machine.of(await database.vm(), tmp_path / "vm")
    client = await machine.start()
    await reached(lambda: "READY=1" in supervisor.heard())
    client.process.terminate()

    assert await client.ended() == 0
    assert supervisor.heard()[-1] == "STOPPING=1"


def test_systemds_socket_may_have_no_name_among_files(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"lablink-{uuid4()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as at:
        at.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        tell_systemd("READY=1", "STATUS=well")
        assert at.recv(100) == b"READY=1\nSTATUS=well"


@pytest.mark.parametrize("address", ["", "/no/such/socket", "vsock:2:1"])
def test_nobody_is_told_where_no_systemd_waits(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    tell_systemd("READY=1")
    assert os.environ["NOTIFY_SOCKET"] == address
