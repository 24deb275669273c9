"""Migrations: up, down and up again, all or nothing, one at a time, and written down."""

import asyncio
import json
import sys
from pathlib import Path

import asyncpg
import pytest

from allocator import migrate, migrations
from allocator.migrations import MigrationFailed
from tests.sql.steps import lent
from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.sql import copied_sql

EVERYTHING = """
    SELECT kind || ' ' || name FROM (
        SELECT 'relation' AS kind, n.nspname || '.' || c.relname AS name
        FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        UNION ALL SELECT 'function', n.nspname || '.' || p.oid::regprocedure
        FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        UNION ALL SELECT 'type', n.nspname || '.' || t.typname
        FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        UNION ALL SELECT 'schema', nspname FROM pg_namespace) AS things
    WHERE name NOT SIMILAR TO '(pg|information)_%|%alembic_version%|%.pg_toast%'
    ORDER BY 1
"""


async def contents(database: Database) -> list[str]:
    owner = await database.connect()
    return [row[0] for row in await owner.fetch(EVERYTHING)]


async def operations(database: Database) -> list[tuple[str, str | None, object]]:
    owner = await database.connect()
    rows = await owner.fetch("SELECT status, error, result FROM operations WHERE kind = 'migrate' ORDER BY id")
    return [(row["status"], row["error"], json.loads(row["result"] or "null")) for row in rows]


@pytest.fixture
def sql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of allocator/sql that a test may spoil."""
    return copied_sql(tmp_path / "sql", monkeypatch)


async def test_down_leaves_an_empty_database_and_up_again_the_same_as_before(database: Database) -> None:
    dsn, before = database.dsn("lablink"), await contents(database)
    assert await migrate.downgrade(dsn, "base") is None
    assert await contents(database) == ["schema public"]
    assert await migrate.upgrade(dsn) == (await migrate.history(dsn))[-1].version
    assert await contents(database) == before


async def test_each_step_down_and_up_again_leaves_a_database_that_works(database: Database) -> None:
    dsn, before = database.dsn("lablink"), await contents(database)
    for step in reversed((await migrate.history(dsn))[1:]):
        await database.vm(f"vm-of-{step.version}")
        await migrate.downgrade(dsn, "-1")
        assert not (await migrate.history(dsn))[-1].applied
        await database.vm(f"vm-below-{step.version}")
    await migrate.upgrade(dsn)
    assert await contents(database) == before


async def test_a_machine_that_is_lent_goes_on_saying_hello_on_the_way_back(
    database: Database, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await migrate.downgrade(database.dsn("lablink"), "-1")
    orders = await vm.connection.fetchrow("SELECT * FROM client_api.hello($1, $2)", 1, lease)
    assert orders is not None and (orders["status"], orders["kind"]) == ("in-use", "desktop")


async def test_machines_that_were_to_go_are_lent_again_on_the_way_back(database: Database) -> None:
    owner = await database.connect("lablink")
    await database.vm("vm-1")
    await owner.execute("SELECT drain_vm('vm-1')")
    await owner.execute("INSERT INTO pool_scaling (pool, leaving) VALUES ('default', '{vm-1}')")
    await migrate.downgrade(database.dsn("lablink"), "-1")
    assert not await owner.fetchval("SELECT draining FROM vms")


async def test_upgrading_what_is_up_to_date_changes_nothing(database: Database) -> None:
    before = await contents(database)
    await migrate.upgrade(database.dsn("lablink"))
    assert await contents(database) == before


async def test_a_migration_that_fails_leaves_nothing(database: Database, sql: Path) -> None:
    await migrate.downgrade(database.dsn("lablink"), "base")
    script = sql / "V1__main_job.sql"
    lines = script.read_text().count("\n") + 1
    script.write_text(f"{script.read_text()}\nSELECT nonsense;\n")
    with pytest.raises(
        MigrationFailed, match=rf"V1__main_job.sql, line {lines + 1}: column \"nonsense\" does not exist"
    ):
        await migrate.upgrade(database.dsn("lablink"))
    assert await contents(database) == ["schema public"]


async def test_a_function_that_fails_undoes_the_migration_and_is_written_down(database: Database, sql: Path) -> None:
    before = await contents(database)
    (sql / "functions" / "00_first.sql").write_text("CREATE TABLE half_done (x int);")
    (sql / "functions" / "zz_last.sql").write_text("CREATE FUNCTION broken() RETURNS int LANGUAGE sql RETURN nonsense;")
    with pytest.raises(MigrationFailed, match=r"The database is as it was: zz_last\.sql"):
        await migrate.upgrade(database.dsn("lablink"))
    assert await contents(database) == before
    status, error, _ = (await operations(database))[-1]
    assert status == "failed"
    assert error is not None
    assert "zz_last.sql" in error


async def test_a_down_script_that_fails_leaves_everything(database: Database, sql: Path) -> None:
    before = await contents(database)
    down = sql / "V1__main_job.down.sql"
    down.write_text(f"{down.read_text()}\nSELECT nonsense;\n")
    with pytest.raises(MigrationFailed):
        await migrate.downgrade(database.dsn("lablink"), "base")
    assert await contents(database) == before


async def test_a_version_that_there_is_not_is_refused(database: Database) -> None:
    dsn, words = database.dsn("lablink"), "There is no version nonsense to go to from here: `lablink db history`"
    with pytest.raises(MigrationFailed, match=words):
        await migrate.stamp(dsn, "nonsense")
    with pytest.raises(MigrationFailed, match=words):
        await migrate.downgrade(dsn, "nonsense")
    with pytest.raises(MigrationFailed, match="at version nonsense, which this LabLink does not know"):
        migrate.offline_sql("nonsense")


async def test_a_version_that_was_lost_is_written_down_again(database: Database) -> None:
    dsn, owner = database.dsn("lablink"), await database.connect()
    await owner.execute("DELETE FROM alembic_version")
    with pytest.raises(MigrationFailed, match="lablink db stamp VERSION"):
        await migrate.upgrade(dsn)
    assert await migrate.stamp(dsn, "head") == await migrate.upgrade(dsn)


async def test_two_versions_written_down_are_named_with_what_to_do(database: Database) -> None:
    await (await database.connect()).execute("INSERT INTO alembic_version VALUES ('1')")
    with pytest.raises(MigrationFailed, match="DELETE FROM alembic_version WHERE"):
        await migrate.history(database.dsn("lablink"))


async def test_a_version_from_the_future_is_not_migrated(database: Database) -> None:
    await (await database.connect()).execute("UPDATE alembic_version SET version_num = 'V999'")
    with pytest.raises(MigrationFailed, match="at version V999, which this LabLink does not know"):
        await migrate.upgrade(database.dsn("lablink"))


async def test_functions_are_renewed_by_every_migrate(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("CREATE OR REPLACE FUNCTION unassigned_vms_count() RETURNS integer LANGUAGE sql RETURN -1")
    await migrate.upgrade(database.dsn("lablink"))
    assert await owner.fetchval("SELECT unassigned_vms_count()") == 0


async def test_a_second_migrate_waits_for_the_first(database: Database) -> None:
    owner = await database.connect()
    async with owner.transaction():
        await owner.execute(migrate.LOCK_VERSION)
        second = asyncio.ensure_future(migrate.upgrade(database.dsn("lablink")))
        await _waiting_for_lock(database)
        assert not second.done()
    assert await second is not None


async def _waiting_for_lock(database: Database) -> None:
    watcher = await database.connect()
    async with asyncio.timeout(LIMIT_SECONDS):
        while not await watcher.fetchval(
            "SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'alembic_version'::regclass AND NOT granted)"
        ):
            pass


async def test_a_machine_cannot_keep_anybody_from_migrating(database: Database) -> None:
    client = await (await database.vm()).connect()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await client.execute(f"SELECT pg_advisory_lock({migrate.LOCK})")
    with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError)):
        await client.execute(f"BEGIN; {migrate.LOCK_VERSION}")
    await client.execute("ROLLBACK")
    await migrate.upgrade(database.dsn("lablink"))


async def test_down_drops_the_machines_roles_and_nobody_elses_functions(database: Database) -> None:
    vm = await database.vm()
    superuser, owner = await database.connect("postgres"), await database.connect("lablink")
    await superuser.execute("CREATE FUNCTION theirs() RETURNS integer LANGUAGE sql RETURN 1")
    await owner.execute("CREATE FUNCTION the_admins() RETURNS integer LANGUAGE sql RETURN 2")
    await migrate.downgrade(database.dsn("lablink"), "base")
    assert not await superuser.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", vm.role)
    assert await superuser.fetchval("SELECT theirs()") == 1
    assert await owner.fetchval("SELECT the_admins()") == 2


async def test_down_also_drops_what_only_an_earlier_release_made(database: Database) -> None:
    owner = await database.connect("lablink")
    await owner.execute("CREATE FUNCTION refuse_dead_leases(integer[]) RETURNS void LANGUAGE sql RETURN NULL")
    await migrate.downgrade(database.dsn("lablink"), "base")
    assert await contents(database) == ["schema public"]


async def test_two_processes_that_migrate_an_empty_database_at_once_both_succeed(database: Database) -> None:
    dsn = database.dsn("lablink")
    await migrate.downgrade(dsn, "base")
    program = "import asyncio, sys; from allocator import migrate; asyncio.run(migrate.upgrade(sys.argv[1]))"
    root = Path(__file__).parents[2]
    both = [await asyncio.create_subprocess_exec(sys.executable, "-c", program, dsn, cwd=root) for _ in range(2)]
    assert [await each.wait() for each in both] == [0, 0]


async def test_history_tells_what_is_applied(database: Database) -> None:
    dsn = database.dsn("lablink")
    first = (await migrate.history(dsn))[0]
    assert (first.version, first.description, first.applied) == ("1", "main job", True)
    await migrate.downgrade(dsn, "base")
    assert not (await migrate.history(dsn))[0].applied


async def test_a_database_from_the_future_is_said_to_be_so(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("UPDATE alembic_version SET version_num = '99'")
    with pytest.raises(MigrationFailed, match="at version 99, which this LabLink does not know"):
        await migrate.history(database.dsn("lablink"))
    with pytest.raises(MigrationFailed, match="99"):
        await migrate.upgrade(database.dsn("lablink"))


async def test_each_run_is_written_down_with_its_result(database: Database) -> None:
    now = await migrate.upgrade(database.dsn("lablink"))
    assert (await operations(database))[-1] == ("done", None, {"from": now, "to": now})


async def test_offline_sql_makes_the_same_database(database: Database) -> None:
    before = await contents(database)
    await migrate.downgrade(database.dsn("lablink"), "base")
    owner = await database.connect()
    await owner.execute("DROP TABLE alembic_version")
    script = migrate.offline_sql()
    with pytest.raises(asyncpg.DivisionByZeroError):  # as psql would run it: its last statement fails
        await owner.execute(script.replace("COMMIT;", "SELECT 1 / 0;\nCOMMIT;"))
    await owner.execute("ROLLBACK")
    assert await contents(database) == ["schema public"]
    await owner.execute(script)
    assert await contents(database) == before
    assert (await migrate.history(database.dsn("lablink")))[-1].applied


async def test_offline_sql_also_starts_at_the_version_that_there_is(database: Database) -> None:
    dsn, before = database.dsn("lablink"), await contents(database)
    await migrate.downgrade(dsn, "-1")
    have = [step.version for step in await migrate.history(dsn) if step.applied]
    await (await database.connect()).execute(migrate.offline_sql(have[-1]))
    assert await contents(database) == before
    assert (await migrate.history(dsn))[-1].applied


def test_every_version_has_its_two_files_and_they_are_called_alike() -> None:
    ups = {file.name.removesuffix(".sql") for file in migrations.SQL.glob("V*.sql") if ".down." not in file.name}
    downs = {file.name.removesuffix(".down.sql") for file in migrations.SQL.glob("V*.down.sql")}
    revisions = {file.stem for file in (migrate.SCRIPTS / "versions").glob("V*.py")}
    assert ups == downs == revisions


async def test_a_failed_connection_is_not_called_a_failed_migration() -> None:
    with pytest.raises(ConnectionRefusedError):
        await migrate.upgrade("postgresql://lablink:x@127.0.0.1:1/lablink_db")


async def test_a_user_who_is_not_the_owner_cannot_migrate(database: Database) -> None:
    with pytest.raises(MigrationFailed, match="permission denied"):
        await migrate.upgrade(database.dsn("lablink_app"))
