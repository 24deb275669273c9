"""The server of `lablink up` after one that was killed, left over or started by somebody else."""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Collection, Iterator
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.local import UpFailed
from allocator.local.accounts import account_of_server
from allocator.local.postgres import Server, running_server
from allocator.local.postgres_binaries import find_binaries
from allocator.local.postgres_process import postmaster
from tests.support import LIMIT_SECONDS
from tests.support.local_postgres import FAST, ask, initialised
from tests.support.processes import descendants


@pytest_asyncio.fixture
async def directory(tmp_path: Path) -> Path:
    return await initialised(tmp_path / "data")


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user may walk to, which pytest's are not."""
    with tempfile.TemporaryDirectory(prefix="lablink-open-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


async def _ready(data: Path, pid: int) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while postmaster(data) != (pid, "ready"):  # noqa: ASYNC110 (a file tells no event)
            await asyncio.sleep(0.01)


async def test_a_server_that_somebody_else_started_on_the_directory_is_left_alone(open_directory: Path) -> None:
    directory = await initialised(open_directory / "data")
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
    async with asyncio.timeout(LIMIT_SECONDS):
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


async def _first_line(starter: asyncio.subprocess.Process) -> int:
    """The process id that it tells; 0 when it was killed before."""
    assert starter.stdout is not None
    return int(await starter.stdout.readline() or 0)


@asynccontextmanager
async def started_elsewhere(directory: Path) -> AsyncIterator[tuple[asyncio.subprocess.Process, int]]:
    """Another process that runs a server, and that server's process id."""
    starter = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTER, str(directory), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    try:
        yield starter, await _first_line(starter)
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
    assert (directory / "postgres.log").read_text().count("database system was shut down at") == 2


async def test_an_initdb_left_over_does_not_disturb_the_next_start(open_directory: Path) -> None:
    left, directory, busy = await _left_busy(open_directory)
    beginning = asyncio.ensure_future(_version(directory))
    await _begun(directory, beginning, but_not=left)
    for pid in busy:
        os.kill(pid, signal.SIGCONT)

    assert await beginning >= 15


async def _left_busy(below: Path) -> tuple[set[Path], Path, list[int]]:
    """What an initdb has begun to fill whose starter was killed, for which directory, and itself, which stands still.

    One that was done before anybody stopped it is cleared away: then another one is started.
    """
    for directory in (below / f"data-{number}" for number in count()):
        starter = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STARTER, str(directory), stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
        )
        begun = await _begun(directory, ended := asyncio.ensure_future(_first_line(starter)))
        running = [process.pid for process in descendants(starter.pid) if "initdb" in process.command]
        busy = [pid for pid in running if _stopped(pid)]
        starter.kill()
        await asyncio.gather(ended, starter.wait())
        if begun and busy:
            return begun, directory, busy
        await _version(directory)
    raise AssertionError


def _stopped(pid: int) -> bool:
    """Whether it was there to be stopped: initdb runs others for a moment."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        return True
    return False


async def _begun(directory: Path, ended: asyncio.Future[int], but_not: Collection[Path] = ()) -> set[Path]:
    """The directory that an initdb has begun to fill, another one than those; none if that has ended meanwhile."""
    begun: set[Path] = set()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not begun and not ended.done():
            await asyncio.sleep(0.001)
            begun = {path.parents[1] for path in directory.glob("postgres.new*/data/PG_VERSION")}.difference(but_not)
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
    innocent = await asyncio.create_subprocess_exec("sleep", "600", user=account.uid if account else None)
    try:
        lines = [str(innocent.pid), str(directory / "postgres"), "1", str(server.port), "", "127.0.0.1", "0 0", "ready"]
        (directory / "postgres" / "postmaster.pid").write_text("\n".join(lines))
        async with running_server(directory, settings=FAST) as again:
            assert await ask(again, "SELECT 1") == 1
        assert innocent.returncode is None
    finally:
        innocent.kill()
        await innocent.wait()
