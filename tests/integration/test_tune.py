"""`lablink db tune`: the guide's settings for the guide's machine, compared with a server and set on one."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.local.postgres import Server, running_server
from allocator.upkeep import tune
from allocator.upkeep.tune import GB, MB
from tests.support.admin import answer, lablink, place
from tests.support.database import PASSWORDS, Database
from tests.support.server import UNSAFE_AND_FAST, TestServer, fresh_server
from tests.support.up import run_lablink

GUIDE = """
shared_buffers = 512MB
effective_cache_size = 1GB
maintenance_work_mem = 128MB
checkpoint_completion_target = 0.9
wal_buffers = 16MB
default_statistics_target = 100
random_page_cost = 1.1
effective_io_concurrency = 200
work_mem = 5MB
min_wal_size = 1GB
max_wal_size = 4GB
"""


@pytest_asyncio.fixture
async def own(tmp_path: Path, server: TestServer) -> AsyncIterator[Server]:
    """A server whose settings a test may change."""
    async with fresh_server(tmp_path, server.version) as started:
        yield started


def test_the_guides_machine_gets_the_guides_settings() -> None:
    printed = dict(line.split(" = ") for line in GUIDE.strip().splitlines())
    computed = {each.name: each.value for each in tune.recommended(2 * GB)}
    assert computed == printed | {"max_connections": "100"}


@pytest.mark.parametrize("ram", [tune.LEAST_RAM, GB, 64 * GB, 1024 * GB])
@pytest.mark.parametrize("connections", [10, 100, 10_000])
def test_memory_is_never_promised_twice(ram: int, connections: int) -> None:
    computed = {each.name: tune.number(each.value) for each in tune.recommended(ram, connections)}
    least = 256 * tune.KB * connections
    assert computed["shared_buffers"] + max(computed["work_mem"] * connections, least) <= ram + least
    assert computed["maintenance_work_mem"] <= 2 * GB


async def test_every_recommended_setting_is_one_that_the_server_takes(own: Server) -> None:
    connection = await asyncpg.connect(own.dsn())
    try:
        wanted = await tune.compared(connection, tune.recommended(1 * GB, 120, "hdd"))
        applied = await tune.apply(connection, wanted)
    finally:
        await connection.close()
    assert applied.refused == {}
    assert "shared_buffers" in applied.restart
    assert "work_mem" in applied.set


async def test_what_was_applied_fits_after_a_restart(tmp_path: Path, server: TestServer) -> None:
    settings = {name: value for name, value in UNSAFE_AND_FAST.items() if name != "max_wal_size"}
    for _ in range(2):
        async with running_server(tmp_path, version=server.version, settings=settings) as own:
            connection = await asyncpg.connect(own.dsn())
            wanted = await tune.compared(connection, tune.recommended(1 * GB, 120))
            await tune.apply(connection, wanted)
            await connection.close()
    given_at_the_start = ["max_connections"]
    assert [each.name for each in wanted if not each.fits] == given_at_the_start


async def test_the_command_sets_what_differs_as_the_superuser_that_is_pointed_to(own: Server) -> None:
    await bootstrap.prepare(own.dsn(), PASSWORDS)
    dsn = own.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE)
    await migrate.upgrade(dsn)
    secrets = {"OWNER": PASSWORDS["lablink"], "SERVICE": PASSWORDS["lablink_app"], "SUPER": own.dsn()}
    arguments = ["db", "tune", "--ram", "1GB", "--apply", "--superuser", "env:SUPER", *place(dsn)]

    first = await asyncio.to_thread(run_lablink, *arguments, **secrets)

    assert first.returncode == 0, first.stderr
    assert "work_mem" in first.stdout
    assert "from the next restart of PostgreSQL on: max_connections, shared_buffers" in first.stdout


async def test_the_owner_is_refused_and_told_so(database: Database) -> None:
    owner = await database.connect()
    wanted = await tune.compared(owner, tune.recommended(2 * GB))
    applied = await tune.apply(owner, wanted)
    assert applied.set == applied.restart == []
    assert "permission denied" in applied.refused["work_mem"]


async def test_the_command_compares_with_what_is_set(database: Database) -> None:
    found = {each["name"]: each for each in await answer(database, "db", "tune", "--ram", "2GB")}
    assert found["shared_buffers"]["value"] == "512MB"
    assert found["shared_buffers"]["now"] == "128MB"
    assert not found["shared_buffers"]["fits"]
    assert found["checkpoint_completion_target"]["fits"]
    assert int(found["max_connections"]["value"]) >= 100


async def test_statements_and_a_file_can_be_printed(database: Database) -> None:
    sql = await lablink(database, "db", "tune", "--ram", "2GB", "--as", "sql")
    assert "ALTER SYSTEM SET shared_buffers = '512MB';" in sql.stdout.splitlines()
    conf = await lablink(database, "db", "tune", "--ram", "512MB", "--as", "conf", "--connections", "50")
    assert "shared_buffers = 128MB " in conf.stdout


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--ram", "much"], "for example 2GB"),
        (["--ram", "100MB"], "at least 256MB"),
        (["--ram", "2GB", "--apply"], "--apply needs --superuser"),
    ],
)
async def test_what_cannot_be_is_refused_in_a_sentence(database: Database, arguments: list[str], sentence: str) -> None:
    done = await lablink(database, "db", "tune", *arguments)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_sizes_are_written_as_postgresql_takes_them() -> None:
    assert [tune.in_units(count) for count in (5 * MB + 1, 3 * GB, 6 * GB, 300 * tune.KB)] == [
        "5MB",
        "3GB",
        "6GB",
        "300kB",
    ]
