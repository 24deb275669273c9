"""The server of `lablink up`: made, started, stopped, found again, and recovered from whatever befell it."""

import asyncio
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from allocator.local import UpFailed, postgres_binaries
from allocator.local.accounts import account_of_server
from allocator.local.postgres import Server, kept_secret, running_server
from allocator.local.postgres_binaries import Binaries, find_binaries, runnable
from allocator.local.postgres_process import postmaster
from tests.support.processes import descendants

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="PostgreSQL refuses root alone, and root alone mounts a disk")

FAST = {"fsync": "off"}


async def ask(server: Server, question: str) -> object:
    connection = await asyncpg.connect(server.dsn())
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "data"


async def test_the_second_start_finds_data_and_port_of_the_first(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as first:
        await ask(first, "CREATE TABLE kept AS SELECT 42 AS answer")
    async with running_server(directory, settings=FAST) as second:
        assert second.port == first.port
        assert await ask(second, "SELECT answer FROM kept") == 42


async def test_a_server_refuses_a_wrong_password_and_stores_none(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(server.dsn(password="wrong"))
        assert str(await ask(server, "SELECT rolpassword FROM pg_authid WHERE rolpassword IS NOT NULL")).startswith(
            "SCRAM"
        )


async def test_a_server_listens_on_this_machine_only_and_logs_no_statement(directory: Path) -> None:
    async with running_server(directory, clients=100, settings=FAST) as server:
        assert await ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert await ask(server, "SHOW max_connections") == "240"
        assert await ask(server, "SHOW data_checksums") == "on"
        with pytest.raises(asyncpg.DivisionByZeroError):
            await ask(server, "SELECT 1 / 0 AS secretive")
    log = (directory / "postgres.log").read_text()
    assert "division by zero" in log
    assert "secretive" not in log


@as_root
async def test_a_server_started_by_root_runs_as_somebody_else(directory: Path) -> None:
    account = account_of_server()
    assert account is not None
    async with running_server(directory, settings=FAST) as server:
        assert Path(f"/proc/{server.process.pid}").stat().st_uid == account.uid
        assert (directory / "postgres").stat().st_uid == account.uid


@as_root
async def test_a_directory_closed_to_the_servers_user_works_all_the_same(directory: Path) -> None:
    directory.mkdir(mode=0o700)
    async with running_server(directory, settings=FAST) as server:
        assert await ask(server, "SELECT pg_reload_conf()") is True
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@pytest.fixture
def closed_installation() -> Iterator[Binaries]:
    """The wheel's binaries as under root's home: nobody else may go there or read them."""
    with tempfile.TemporaryDirectory(prefix="lablink-closed-") as directory:
        found = find_binaries(18).directory
        package, name = found.parents[1], found.parent.name
        shutil.copytree(found.parent, Path(directory) / package.name / name)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, Path(directory) / libraries.name)
        for path in Path(directory).rglob("*"):
            path.chmod(0o700)
        yield Binaries(Path(directory) / package.name / name / "bin", 18)


@as_root
def test_binaries_out_of_reach_are_copied_once_to_where_they_run(
    closed_installation: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    account = account_of_server()
    assert account is not None
    with tempfile.TemporaryDirectory(prefix="lablink-cache-") as cache:
        Path(cache).chmod(0o755)
        monkeypatch.setattr(postgres_binaries, "CACHE", Path(cache) / "lablink")
        copied = runnable(closed_installation, account)
        command = [str(copied.directory / "initdb"), "--version"]
        said = subprocess.run(command, user=account.uid, capture_output=True, text=True, check=True, cwd="/").stdout
        assert "18" in said
        assert runnable(closed_installation, account) == copied
        assert len(list((Path(cache) / "lablink").iterdir())) == 1


@as_root
def test_binaries_that_can_neither_be_reached_nor_copied_are_one_sentence(
    closed_installation: Binaries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_binaries, "CACHE", Path("/dev/null/lablink"))
    with pytest.raises(UpFailed, match="put the checkout where everybody may read"):
        runnable(closed_installation, account_of_server())


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A data directory that every user may walk to, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="lablink-open-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory) / "data"


async def _ready(data: Path, pid: int) -> None:
    async with asyncio.timeout(10):
        while postmaster(data) != (pid, "ready"):  # noqa: ASYNC110 (a file tells no event)
            await asyncio.sleep(0.01)


async def test_a_server_that_somebody_else_started_on_the_directory_is_left_alone(open_directory: Path) -> None:
    directory = open_directory
    async with running_server(directory, settings=FAST) as server:
        pass
    account = account_of_server()
    by_hand = await asyncio.create_subprocess_exec(
        find_binaries(server.version).directory / "postgres",
        *("-D", str(directory / "postgres"), "-p", str(server.port), "-c", "unix_socket_directories="),
        user=account.uid if account else None,
        cwd="/",
        stderr=subprocess.DEVNULL,
    )
    try:
        await _ready(directory / "postgres", by_hand.pid)
        with pytest.raises(UpFailed, match=r"lock file .*postmaster.pid.* already exists"):
            async with running_server(directory):
                pass
        assert await ask(server, "SELECT 1") == 1
    finally:
        by_hand.send_signal(signal.SIGQUIT)
        await by_hand.wait()


async def test_a_busy_port_is_given_up_for_a_free_one(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as first:
        pass
    with socket.create_server(("127.0.0.1", first.port)):
        async with running_server(directory, settings=FAST) as second:
            assert second.port != first.port
            assert await ask(second, "SELECT 1") == 1


async def test_a_socket_that_would_not_fit_is_left_out(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    async with running_server(deep, settings=FAST) as server:
        assert await ask(server, "SHOW unix_socket_directories") == ""


async def test_a_directory_in_use_is_refused(directory: Path) -> None:
    async with running_server(directory, settings=FAST):
        with pytest.raises(UpFailed, match="in use by another LabLink"):
            async with running_server(directory):
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


async def test_a_damaged_directory_is_one_sentence(directory: Path) -> None:
    async with running_server(directory, settings=FAST):
        pass
    (directory / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(UpFailed, match=r"PostgreSQL does not start in .*pg_control.*: see postgres.log there"):
        async with running_server(directory):
            pass


def test_a_version_that_is_nowhere_is_refused() -> None:
    with pytest.raises(UpFailed, match="There is no PostgreSQL 7 on this machine"):
        find_binaries(7)


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


async def test_a_killed_server_starts_again(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as first:
        busy = await asyncpg.connect(first.dsn())
        await busy.execute("CREATE TABLE kept AS SELECT 42 AS answer; CHECKPOINT")
        query = asyncio.ensure_future(busy.execute("SELECT count(*) FROM generate_series(1, 1e12)"))
        await _running(first, "generate_series")
        first.process.kill()
        await first.process.wait()
    async with running_server(directory, settings=FAST) as second:
        assert await ask(second, "SELECT answer FROM kept") == 42
    with pytest.raises((OSError, asyncpg.PostgresError)):
        await query


async def _running(server: Server, query: str) -> None:
    question = f"SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE '%{query}%' AND pid <> pg_backend_pid())"
    async with asyncio.timeout(5):
        while not await ask(server, question):
            pass


STARTER = """
import asyncio, sys
from pathlib import Path
from allocator.local.postgres import running_server
async def main():
    async with running_server(Path(sys.argv[1]), settings={"fsync": "off"}) as server:
        print(server.process.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@asynccontextmanager
async def started_elsewhere(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Another process that runs a server, and that server's process id."""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(directory), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert starter.stdout is not None
    try:
        yield starter, int(await starter.stdout.readline())
    finally:
        with suppress(ProcessLookupError):
            starter.kill()
        await starter.wait()


async def test_a_server_does_not_outlive_whoever_started_it(directory: Path) -> None:
    async with started_elsewhere(directory) as (starter, _):
        starter.kill()
        await starter.wait()
    async with running_server(directory, settings=FAST) as server:
        assert await ask(server, "SELECT 1") == 1
    assert (directory / "postgres.log").read_text().count("database system is shut down") == 2


async def test_an_initdb_left_over_does_not_disturb_the_next_start(open_directory: Path) -> None:
    directory = open_directory
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(directory), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    first = await _begun(directory, but_not=set())
    busy = [process.pid for process in descendants(starter.pid) if "initdb" in process.command]
    for pid in busy:
        os.kill(pid, signal.SIGSTOP)
    starter.kill()
    await starter.communicate()

    beginning = asyncio.ensure_future(_version(directory))
    await _begun(directory, but_not=first)
    for pid in busy:
        os.kill(pid, signal.SIGCONT)

    assert busy
    assert await beginning >= 15


async def _begun(directory: Path, but_not: set[Path]) -> set[Path]:
    """The directory that an initdb has begun to fill, another one than those."""
    begun: set[Path] = set()
    async with asyncio.timeout(20):
        while not begun:
            await asyncio.sleep(0.001)
            begun = {path.parents[1] for path in directory.glob("postgres.new*/data/PG_VERSION")} - but_not
    return begun


async def test_a_server_left_over_is_stopped_first(directory: Path) -> None:
    async with started_elsewhere(directory) as (starter, pid):
        os.kill(pid, signal.SIGSTOP)
        starter.kill()
        await starter.wait()
        beginning = asyncio.ensure_future(_version(directory))
        await asyncio.wait({beginning}, timeout=0.3)
        assert not beginning.done()
        os.kill(pid, signal.SIGCONT)
        assert await beginning >= 15


async def _version(directory: Path) -> int:
    async with running_server(directory, settings=FAST) as server:
        return server.version


async def test_a_process_id_that_now_belongs_to_somebody_else_is_no_obstacle(directory: Path) -> None:
    async with running_server(directory, settings=FAST) as server:
        account = account_of_server()
    innocent = await asyncio.create_subprocess_exec("sleep", "60", user=account.uid if account else None)
    try:
        lines = [str(innocent.pid), str(directory / "postgres"), "1", str(server.port), "", "127.0.0.1", "0 0", "ready"]
        (directory / "postgres" / "postmaster.pid").write_text("\n".join(lines))
        async with running_server(directory, settings=FAST) as again:
            assert await ask(again, "SELECT 1") == 1
        assert innocent.returncode is None
    finally:
        innocent.kill()
        await innocent.wait()


def test_a_kept_secret_stays_the_same_and_is_nobody_elses_to_read(directory: Path) -> None:
    secret = kept_secret(directory, "lablink_app")
    assert len(secret) >= 43
    assert kept_secret(directory, "lablink_app") == secret
    assert stat.S_IMODE((directory / "secrets" / "lablink_app").stat().st_mode) == 0o600
    assert stat.S_IMODE((directory / "secrets").stat().st_mode) == 0o700
