"""A database moves from PostgreSQL 15 to another server: all of it or nothing, and nobody goes on with the old one."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.local.postgres import running_server
from allocator.operations import Tell, running
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.move import Moved, move
from allocator.upkeep.reach import connect, in_database
from allocator.upkeep.target import Target
from allocator.upkeep.verify import promises
from tests.sql.steps import CODE, CYD, ask
from tests.support import LIMIT_SECONDS
from tests.support.admin import answer, lablink
from tests.support.crowd import Crowd, coming
from tests.support.database import PASSWORDS, WORKER, Database, Vm, cloned_database, migrated_template
from tests.support.server import UNSAFE_AND_FAST, TestServer
from tests.support.service import connected, ready, running_service, settings_for
from tests.support.upkeep import some_life, without_kept_databases

OLDEST = 15
GIVEN = {role: PASSWORDS[role] for role in (bootstrap.OWNER, bootstrap.SERVICE)}
TOKEN = b"t" * 32


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old_server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[TestServer]:
    """The server that a database comes from."""
    directory = tmp_path_factory.mktemp("old")
    async with running_server(directory, clients=50, version=OLDEST, settings=UNSAFE_AND_FAST) as own:
        yield TestServer(own.dsn(), own.version)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def old_template(old_server: TestServer) -> AsyncIterator[str]:
    """A migrated database there."""
    async with migrated_template(old_server) as name:
        yield name


@pytest_asyncio.fixture
async def database(old_server: TestServer, old_template: str) -> AsyncIterator[Database]:
    """The one that moves."""
    async with (
        cloned_database(old_server, old_template, f"lablink_move_{WORKER}") as own,
        without_kept_databases(own),
    ):
        yield own


@pytest_asyncio.fixture
async def there(server: TestServer, database: Database) -> AsyncIterator[Database]:
    """Where it goes: its name, on the server that the session tests, which has no database of that name yet."""
    async with AsyncExitStack() as opened:
        place = Database(server, database.name, opened)
        try:
            yield place
        finally:
            await opened.aclose()
            superuser = await asyncpg.connect(server.superuser_dsn)
            await superuser.execute(f"DROP DATABASE IF EXISTS {database.name} WITH (FORCE)")
            for role in await roles_of_machines(superuser, database):
                await superuser.execute(f"DROP ROLE IF EXISTS {role}")
            await superuser.close()


async def roles_of_machines(connection: asyncpg.Connection, database: Database) -> list[str]:
    """The roles on the server of `connection` that are machines' of the database that moves, wherever it is now."""
    old = await asyncpg.connect(database.server.superuser_dsn)
    names = [row["rolname"] for row in await old.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^lablink_vm_'")]
    await old.close()
    found = await connection.fetch("SELECT rolname FROM pg_roles WHERE rolname = ANY ($1)", names)
    return [row["rolname"] for row in found]


def target_at(there: Database) -> Target:
    return Target(there.server.superuser_dsn, there.dsn(bootstrap.OWNER), GIVEN)


async def moved_to(there: Database, database: Database, tell: Tell | None = None) -> Moved:
    """The database moved, as the command does it."""
    dsn = database.dsn("lablink")
    async with running(lambda: connect(dsn), "move", "a test", tell=tell) as operation:
        return await move(dsn, target_at(there), operation, database.server.superuser_dsn)


async def client_of(vm: Vm, there: Database) -> asyncpg.Connection:
    """The machine with its old password, at the new server."""
    parts = urlsplit(vm.dsn)
    return await there.keep(there.server.dsn(there.name, vm.role, unquote(parts.password or "")))


async def names(server: TestServer, beginning: str) -> list[str]:
    connection = await asyncpg.connect(server.superuser_dsn)
    rows = await connection.fetch(
        "SELECT datname FROM pg_database WHERE starts_with(datname, $1) ORDER BY 1", beginning
    )
    await connection.close()
    return [row["datname"] for row in rows]


async def test_machines_and_people_go_on_on_the_new_server(database: Database, there: Database) -> None:
    vm = await some_life(database)
    owner = await database.connect()
    await owner.execute("SELECT invite_vm('vm-9', 'default', $1, 3600)", TOKEN)
    await owner.execute("SELECT add_admin('ada', $1, 1)", TOKEN)
    await owner.execute("INSERT INTO groups (name) VALUES ('course')")
    await owner.execute("SELECT add_join_code('course', $1, 9, NULL, clock() + interval '1 day')", TOKEN)
    epoch, lease = await owner.fetchrow("SELECT epoch, lease_id FROM vms") or (0, None)
    events = await owner.fetchval("SELECT count(*) FROM events")
    await owner.close()

    moved = await moved_to(there, database)

    assert (moved.vms, moved.leases, moved.vms_to_invite) == (1, 2, [])
    assert moved.server_version == there.server.version
    client = await client_of(vm, there)
    orders = await client.fetchrow("SELECT * FROM client_api.hello($1, $2)", epoch, lease)
    assert orders
    assert (orders["epoch"], orders["status"], orders["lease_status"]) == (epoch, "in-use", "assigned")
    claimed = await client.fetchrow("SELECT * FROM client_api.claim($1)", epoch)
    assert claimed
    assert CODE in (claimed["secrets"] or claimed["line"])
    new = await there.connect()
    assert await new.fetchval("SELECT count(*) FROM join_tokens WHERE role IS NULL") == 1
    assert await new.fetchval("SELECT admin_of($1)", TOKEN) == "ada"
    assert await new.fetchval("SELECT max_people FROM join_codes WHERE code_sha256 = $1", TOKEN) == 9
    assert await new.fetchval("SELECT count(*) FROM events WHERE kind = 'admin.added'") == 1
    assert await new.fetchval("SELECT count(*) FROM events") >= events
    assert [each for each in await promises(there.dsn("lablink")) if each.wrong and each.rule != "history"] == []
    assert (await ask(await there.connect("lablink_app"), CYD))["outcome"] == "created"
    run = await new.fetchrow("SELECT status, result FROM operations WHERE kind = 'move'")
    assert run
    assert (run["status"], json.loads(run["result"])["kept_as"]) == ("done", moved.kept_as)
    assert await names(there.server, f"{there.name}_") == []


async def test_nobody_goes_on_with_the_old_one_until_the_way_back_is_taken(database: Database, there: Database) -> None:
    vm = await some_life(database)
    session = await vm.connect()

    moved = await moved_to(there, database)

    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await session.execute("SELECT")
    for dsn in (vm.dsn, database.dsn("lablink_app"), database.dsn("lablink")):
        with pytest.raises(asyncpg.InvalidCatalogNameError):
            await asyncpg.connect(dsn)
    kept = await database.keep(in_database(database.dsn("lablink"), moved.kept_as))
    assert await kept.fetchval("SELECT count(*) FROM lease_secrets") == 0
    await kept.close()
    superuser = await database.keep(database.server.superuser_dsn)
    await superuser.execute(moved.back)
    assert await (await vm.connect()).fetchval("SELECT hostname FROM client_api.hello(0, NULL)") == "vm-1"


async def test_a_machine_whose_password_cannot_be_read_is_named(database: Database, there: Database) -> None:
    vm = await database.vm("vm-1")

    done = await lablink(database, "db", "move", "--to", "env:TARGET", TARGET=there.server.superuser_dsn)

    assert done.returncode == 0, done.stderr
    assert "To be invited again, for their passwords could not be read: vm-1." in done.stdout
    assert f"--set database.port={urlsplit(there.server.superuser_dsn).port}" in done.stdout
    with pytest.raises(asyncpg.InvalidPasswordError):
        await client_of(vm, there)


async def test_a_machine_that_speaks_over_the_hub_goes_on_by_its_token(database: Database, there: Database) -> None:
    client = await (await database.vm("vm-1")).connect()
    await client.execute("SELECT client_api.keep_hub_token($1)", TOKEN)
    owner = await database.connect()
    await owner.execute("UPDATE pools SET transport = 'hub'")

    done = await lablink(database, "db", "move", "--to", "env:TARGET", TARGET=there.server.superuser_dsn)

    assert (done.returncode, "To be invited again" in done.stdout) == (0, False)
    said = await (await there.connect("lablink_app")).fetchval("SELECT hub_call($1, 'hello', '{\"epoch\": 0}')", TOKEN)
    assert json.loads(said)["answer"]["hostname"] == "vm-1"


async def test_a_machine_whose_password_was_revoked_is_not_let_in_there_either(
    database: Database, there: Database
) -> None:
    vm = await database.vm("vm-1")
    await (await database.connect()).execute("SELECT revoke_vm('vm-1')")

    await moved_to(there, database)

    superuser = await there.connect("postgres")
    assert await superuser.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", vm.role) is False


async def test_a_move_that_is_interrupted_leaves_the_old_one_working_and_the_target_empty(
    database: Database, there: Database
) -> None:
    await some_life(database)
    copies, goes_on = asyncio.Event(), asyncio.Event()

    async def stay(*_: object) -> None:
        copies.set()
        await goes_on.wait()

    moving = asyncio.create_task(moved_to(there, database, stay))
    async with asyncio.timeout(LIMIT_SECONDS):
        await copies.wait()
    assert await names(there.server, f"{there.name}_moving")
    moving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await moving

    assert await names(there.server, f"{there.name}_") == []
    new = await there.connect("postgres")
    assert await new.fetchval("SELECT to_regclass('vms')") is None
    assert await roles_of_machines(new, database) == []
    assert (await ask(await database.connect("lablink_app"), CYD))["outcome"] == "created"
    run = await (await database.connect()).fetchrow("SELECT status, error FROM operations WHERE kind = 'move'")
    assert tuple(run or ()) == ("failed", "interrupted")


async def test_a_switch_that_fails_leaves_the_old_one_working(database: Database, there: Database) -> None:
    await some_life(database)
    superuser = await database.connect("postgres")

    with pytest.raises(UpkeepFailed, match="Somebody stays connected"):
        await moved_to(there, database)

    assert await superuser.fetchval("SELECT count(*) FROM leases WHERE live") == 2
    assert (await ask(await database.connect("lablink_app"), CYD))["outcome"] == "created"
    new = await there.connect("postgres")
    assert await new.fetchval("SELECT to_regclass('vms')") is None
    assert await roles_of_machines(new, database) == []


async def deployed(there: Database) -> asyncpg.Connection:
    await bootstrap.prepare(there.server.superuser_dsn, PASSWORDS, there.name)
    await migrate.upgrade(there.dsn("lablink"))
    return await there.connect()


async def test_a_target_that_holds_anything_is_refused(database: Database, there: Database) -> None:
    await some_life(database)
    new = await deployed(there)
    await new.execute("INSERT INTO pools (name) VALUES ('other')")

    with pytest.raises(UpkeepFailed, match="is not empty, and nothing there is overwritten"):
        await moved_to(there, database)

    assert await new.fetchval("SELECT count(*) FROM pools") == 2
    assert (await ask(await database.connect("lablink_app"), CYD))["outcome"] == "created"


async def test_a_target_that_was_deployed_and_holds_nothing_will_do(database: Database, there: Database) -> None:
    await some_life(database)
    await (await deployed(there)).close()

    await moved_to(there, database)

    assert await (await there.connect()).fetchval("SELECT count(*) FROM leases WHERE live") == 2


async def test_requests_are_answered_503_meanwhile_and_none_that_was_accepted_is_lost(
    database: Database, there: Database, tmp_path: Path
) -> None:
    async with running_service(settings_for(database, tmp_path)) as service, service.client() as client:
        await ready(service.service)
        await connected(service.service)
        crowd = Crowd(client, lambda _: "echo hello")
        async with coming(crowd):
            await crowd.accepts(1)
            await moved_to(there, database)
            await crowd.is_refused()

    assert {answer.status for answer in crowd.refused} == {503}
    assert all(int(answer.retry_after or 0) > 0 for answer in crowd.refused)
    assert await crowd.lost(await there.connect()) == []


async def test_the_command_says_where_it_went_and_which_settings_lead_there(
    database: Database, there: Database
) -> None:
    vm = await database.vm("vm-1")
    to, above = there.server.superuser_dsn, database.server.superuser_dsn
    command = ["db", "move", "--to", "env:TARGET", "--superuser", "env:SUPERUSER"]

    moved = await answer(database, *command, TARGET=to, SUPERUSER=above)

    parts = urlsplit(there.server.superuser_dsn)
    assert moved["set"] == [f"database.host={parts.hostname}", f"database.port={parts.port}", "database.tls=loopback"]
    assert moved["vms_to_invite"] == []
    assert await (await client_of(vm, there)).fetchval("SELECT status FROM client_api.hello(0, NULL)") == "available"
