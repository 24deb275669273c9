"""The server of `lablink up`: made, started, stopped, found again, and recovered from whatever befell it."""

import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.local import UpFailed
from allocator.local.accounts import account_of_server
from allocator.local.postgres import kept_secret, running_server
from tests.support.local_postgres import FAST, as_root, ask, initialised, keep_port, kept_port


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest_asyncio.fixture
async def made(directory: Path) -> Path:
    """A directory whose data was made before."""
    return await initialised(directory)


async def test_the_second_start_finds_data_and_port_of_the_first(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as first:
        await ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
        assert int(kept_port(directory).read_text()) == first.port
    port = keep_port(directory)
    async with running_server(directory, settings=FAST) as second:
        assert second.port == port
        assert await ask(second, "SELECT answer FROM kept") == 42


async def test_a_server_refuses_a_wrong_password_and_stores_none(made: Path) -> None:
    async with running_server(made, settings=FAST) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn(password="wrong"))
        assert str(await ask(server, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")).startswith(
            "SCRAM"
        )


async def test_a_server_listens_on_this_machine_only_and_logs_no_statement(made: Path) -> None:
    async with running_server(made, clients=100, settings=FAST) as server:
        assert await ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert await ask(server, "SHOW max_connections") == "240"
        assert await ask(server, "SHOW data_checksums") == "on"
        assert await ask(server, "SHOW authentication_timeout") == "5s"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await ask(server, "SELECT 1 / 0 AS secretive")
    log = (made / "postgres.log").read_text()
    assert "division by zero" in log
    assert "secretive" not in log


@pytest.mark.skipif(sys.platform != "linux", reason="processes show their environment under /proc")
async def test_a_server_is_told_nothing_of_what_else_is_in_the_environment(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOMEBODYS_SECRET", "precious")
    async with running_server(made, settings=FAST) as server:
        environment = Path(f"/proc/{server.process.pid}/environ").read_bytes()

    assert b"LC_ALL=C" in environment
    assert b"precious" not in environment


@as_root
async def test_a_server_started_by_root_runs_as_somebody_else(made: Path) -> None:
    account = account_of_server()
    assert account is not None
    async with running_server(made, settings=FAST) as server:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == account.uid
        assert (made / "postgres").stat().st_uid == account.uid


@as_root
async def test_a_directory_closed_to_the_servers_user_works_all_the_same(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    async with running_server(directory, settings=FAST) as server:
        assert await ask(server, "SELECT pg_reload_conf()") is True
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


async def test_a_busy_port_is_given_up_for_a_free_one(made: Path) -> None:
    async with running_server(made, settings=FAST) as first:
        pass
    with socket.create_server(("127.0.0.1", first.port)):
        async with running_server(made, settings=FAST) as second:
            assert second.port != first.port
            assert await ask(second, "SELECT 1") == 1


async def test_a_socket_that_would_not_fit_is_left_out(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with running_server(deep, settings=FAST) as server:
        assert await ask(server, "SHOW unix_socket_directories") == ""


async def test_a_directory_in_use_is_refused(made: Path) -> None:
    async with running_server(made, settings=FAST):
        with pytest.raises(UpFailed, match="in use by another LabLink"):
            async with running_server(made):
                pass


async def test_a_file_in_place_of_the_directory_is_refused(directory: Path) -> None:
    directory.write_text("not a directory")
    with pytest.raises(UpFailed, match="cannot be the data directory"):
        async with running_server(directory):
            pass


async def test_somebody_elses_files_are_refused_and_left_alone(directory: Path) -> None:
    (directory / "postgres").mkdir(parents=True)
    (directory / "postgres" / "thesis.txt").write_text("precious")
    with pytest.raises(UpFailed, match="not a PostgreSQL data directory"):
        async with running_server(directory):
            pass
    assert (directory / "postgres" / "thesis.txt").read_text() == "precious"


async def test_a_directory_of_a_version_that_is_not_here_is_refused(directory: Path) -> None:
    (directory / "postgres").mkdir(parents=True)
    (directory / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(UpFailed, match=r"There is no PostgreSQL 9 on this machine, only .*18"):
        async with running_server(directory):
            pass


async def test_a_damaged_directory_is_one_sentence(made: Path) -> None:
    async with running_server(made, settings=FAST):
        pass
    (made / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(UpFailed, match=r"PostgreSQL does not start in .*pg_control.*: see postgres.log there"):
        async with running_server(made):
            pass


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m,mode=755", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


@as_root
async def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(full_disk: Path) -> None:
    with pytest.raises(UpFailed, match="The disk is full"):
        async with running_server(full_disk / "data"):
            pass
    assert not list((full_disk / "data").glob("postgres.new*"))
    assert not (full_disk / "data" / "postgres").exists()


def test_a_kept_secret_stays_the_same_and_is_nobody_elses_to_read(directory: Path) -> None:
    secret = kept_secret(directory, "lablink_app")
    assert len(secret) >= 43
    assert kept_secret(directory, "lablink_app") == secret
    assert stat.S_IMODE((directory / "secrets" / "lablink_app").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "secrets").stat().st_mode) == 0o700
