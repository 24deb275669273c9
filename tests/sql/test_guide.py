"""Every SQL statement that a reader of the guide would paste runs as it is printed there, through psql, as lablink."""

import asyncio
import shutil

import asyncpg
import pytest

from allocator.local import UpFailed
from allocator.local.postgres_binaries import find_binaries
from tests.sql.steps import ADA, BOB, ask, is_cut_off, lease_of, machine, row_of
from tests.support import LIMIT_SECONDS
from tests.support.database import Database, as_superuser

PRINTED_DATABASE = "lablink_db"

READING = [
    "SELECT * FROM vms;",
    "SELECT hostname, status, created_at\nFROM vms\nWHERE status = 'available'\nORDER BY created_at;",
    """SELECT hostname, email, status, crd_command, updated_at
FROM vms
WHERE status = 'in-use'
ORDER BY updated_at DESC;""",
    "SELECT status, COUNT(*) as count\nFROM vms\nGROUP BY status;",
    "SELECT hostname, status, crd_command\nFROM vms\nWHERE email = 'user@example.com';",
    "SELECT pg_size_pretty(pg_database_size('lablink_db'));",
    """SELECT
  schemaname,
  tablename,
  pg_size_pretty(pg_total_relation_size(schemaname||'.'||tablename)) AS size
FROM pg_tables
WHERE schemaname = 'public'
ORDER BY pg_total_relation_size(schemaname||'.'||tablename) DESC;""",
    """SELECT
  pid,
  usename,
  application_name,
  client_addr,
  state,
  query
FROM pg_stat_activity
WHERE datname = 'lablink_db';""",
    """SELECT
  pid,
  now() - pg_stat_activity.query_start AS duration,
  query
FROM pg_stat_activity
WHERE state = 'active'
  AND now() - pg_stat_activity.query_start > interval '5 seconds'
ORDER BY duration DESC;""",
    "SELECT 1;",
    "-- View all VMs\nSELECT * FROM vms;",
    "-- Count by status\nSELECT status, COUNT(*) FROM vms GROUP BY status;",
    "-- Find available VMs\nSELECT * FROM vms WHERE status = 'available';",
]
MAINTENANCE = [
    "-- Analyze and vacuum\nVACUUM ANALYZE vms;",
    "-- Full vacuum (more aggressive, requires exclusive lock)\nVACUUM FULL vms;",
    "REINDEX TABLE vms;",
    "-- Index on email for faster lookups\nCREATE INDEX idx_vms_email ON vms(email);",
    "-- Index on status\nCREATE INDEX idx_vms_status ON vms(status);",
    "-- Composite index\nCREATE INDEX idx_vms_status_email ON vms(status, email);",
]
KILL_IDLE = """SELECT pg_terminate_backend(pid)
FROM pg_stat_activity
WHERE datname = 'lablink_db'
  AND state = 'idle'
  AND state_change < NOW() - INTERVAL '10 minutes';"""
MARK_AVAILABLE = """-- Mark VM as available
UPDATE vms
SET status = 'available', email = NULL, crd_command = NULL, updated_at = NOW()
WHERE hostname = 'i-0abc123def456';"""
MARK_FAILED = """-- Mark VM as failed
UPDATE vms
SET status = 'failed', updated_at = NOW()
WHERE hostname = 'i-0abc123def456';"""
MARK_AVAILABLE_SHORTLY = "-- Update VM status\nUPDATE vms SET status = 'available' WHERE hostname = 'i-0abc123def456';"
DELETE = "DELETE FROM vms WHERE hostname = 'i-0abc123def456';"
TRUNCATE = "-- Use with caution!\nTRUNCATE TABLE vms;"
LISTEN = "-- In psql session\nLISTEN vm_updates;"
MARK_IN_USE = "-- In another session, make a change:\nUPDATE vms SET status = 'in-use' WHERE id = 1;"

HOSTNAME = "i-0abc123def456"


def program(database: Database, name: str = "psql") -> str | None:
    """One of PostgreSQL's programs: of the version of the server under test, else whichever is installed."""
    try:
        beside_the_server = find_binaries(database.server.version).directory / name
    except UpFailed:
        return shutil.which(name)
    return str(beside_the_server) if beside_the_server.exists() else shutil.which(name)


async def output_of(*arguments: str, stdin: bytes | None = None) -> str:
    """What a program prints; it must succeed."""
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await asyncio.wait_for(process.communicate(stdin), LIMIT_SECONDS)
    assert process.returncode == 0, output.decode()
    return output.decode()


async def paste(database: Database, *statements: str) -> str:
    """What psql prints for these statements, each sent on its own; any error fails the test."""
    statements = tuple(statement.replace(PRINTED_DATABASE, database.name) for statement in statements)
    psql = program(database)
    if psql is None:
        return await paste_without_psql(database, statements)
    options = ("--no-psqlrc", "--variable=ON_ERROR_STOP=1", f"--dbname={database.dsn('lablink')}")
    return await output_of(psql, *options, *(f"--command={statement}" for statement in statements))


async def paste_without_psql(database: Database, statements: tuple[str, ...]) -> str:
    connection = await database.connect("lablink")
    return "\n".join([str(await connection.fetch(statement)) for statement in statements])


@pytest.mark.parametrize("statement", READING + MAINTENANCE)
async def test_a_statement_of_the_guide_runs_as_printed(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await database.vm(HOSTNAME)
    await ask(service, "user@example.com")

    await paste(database, statement)


async def test_all_statements_of_the_guide_run_one_after_the_other(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm(HOSTNAME)
    await ask(service, "user@example.com")

    await paste(
        database,
        *READING,
        *MAINTENANCE,
        LISTEN,
        KILL_IDLE,
        MARK_FAILED,
        MARK_AVAILABLE,
        MARK_AVAILABLE_SHORTLY,
        DELETE,
        TRUNCATE,
    )


async def test_the_guides_table_begins_with_the_guides_columns(database: Database, owner: asyncpg.Connection) -> None:
    columns = await owner.fetch(
        "SELECT column_name FROM information_schema.columns WHERE table_name = 'vms' ORDER BY ordinal_position"
    )

    printed = ["id", "hostname", "email", "status", "crd_command", "created_at", "updated_at"]
    assert [row["column_name"] for row in columns][:7] == printed


async def test_marking_a_machine_available_as_in_the_guide_releases_and_cleans_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database, HOSTNAME)
    lease = (await ask(service))["lease_id"]
    await vm.run()

    printed = await paste(database, MARK_AVAILABLE)
    await vm.clean()

    assert "NOTICE" in printed or program(database) is None
    assert (await lease_of(owner, lease))["status"] == "ended"
    assert (await row_of(owner, HOSTNAME))["status"] == "available"


async def test_marking_a_machine_failed_as_in_the_guide_moves_who_had_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm(HOSTNAME)
    lease = (await ask(service))["lease_id"]

    await paste(database, MARK_FAILED)

    row = await row_of(owner, HOSTNAME)
    assert (row["status"], row["reason"]) == ("failed", "held by lablink")
    assert (await lease_of(owner, lease))["trouble"] == "vm-failed"


@pytest.mark.parametrize("statement", [DELETE, TRUNCATE])
async def test_deleting_machines_as_in_the_guide_moves_who_had_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await database.vm(HOSTNAME)
    lease = (await ask(service))["lease_id"]

    await paste(database, statement)

    assert (await lease_of(owner, lease))["trouble"] == "vm-deleted"
    assert await owner.fetchval("SELECT count(*) FROM vms") == 0


async def test_the_guides_example_of_listen_shows_a_notification(database: Database, owner: asyncpg.Connection) -> None:
    if program(database) is None:
        pytest.skip("only psql prints notifications")
    vm = await database.vm(HOSTNAME)

    printed = await paste(database, LISTEN, MARK_IN_USE.replace("id = 1", f"id = {vm.id}"))

    assert 'Asynchronous notification "vm_updates"' in printed
    assert (await row_of(owner, HOSTNAME))["status"] == "in-use"


async def test_the_guides_way_to_kill_idle_connections_spares_the_young(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await paste(database, KILL_IDLE)

    assert await service.fetchval("SELECT unassigned_vms_count()") == 0


async def test_the_owner_may_kill_the_idle_connections_of_the_service_and_of_machines(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    victims = [await connection.fetchval("SELECT pg_backend_pid()") for connection in (service, vm.connection)]

    await paste(
        database,
        KILL_IDLE.replace(
            "INTERVAL '10 minutes'", f"INTERVAL '-1 day' AND pid = ANY ('{{{victims[0]}, {victims[1]}}}')"
        ),
    )

    assert await is_cut_off(service)
    assert await is_cut_off(vm.connection)


async def test_the_guides_example_row_can_be_inserted(database: Database, owner: asyncpg.Connection) -> None:
    await paste(
        database,
        "INSERT INTO vms (id, hostname, email, status, crd_command, created_at, updated_at) VALUES (1, "
        "'i-0abc123def456', 'user@example.com', 'in-use', 'python train.py', "
        "'2025-01-15 10:30:00', '2025-01-15 10:35:00')",
    )

    row = await row_of(owner, HOSTNAME)
    assert (row["email"], row["crd_command"]) == ("user@example.com", "python train.py")
    assert (await lease_of(owner, row["lease_id"]))["email"] != ADA


async def test_a_dump_as_in_the_guide_can_be_restored_into_an_empty_database_where_the_rules_hold(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    psql, pg_dump = program(database), program(database, "pg_dump")
    if psql is None or pg_dump is None:
        pytest.skip("there is no pg_dump here")
    vm = await machine(database)
    await ask(service, ADA)
    await vm.run()
    await ask(service, BOB)
    copy = f"{database.name}_copy"
    await owner.execute(f"CREATE DATABASE {copy}")
    try:
        dump = await output_of(pg_dump, f"--dbname={database.dsn('lablink')}")
        target = database.dsn("lablink").replace(database.name, copy)
        await output_of(psql, "--no-psqlrc", "--variable=ON_ERROR_STOP=1", f"--dbname={target}", stdin=dump.encode())
        restored = await database.keep(target)

        await restored.execute("UPDATE vms SET status = 'available'")

        kinds = await restored.fetch("SELECT status FROM leases ORDER BY place")
        assert [row["status"] for row in kinds] == ["ended", "queued"]
        assert await restored.fetch("SELECT * FROM broken_invariants()") == []
        await restored.close()
    finally:
        await as_superuser(database.server, f"DROP DATABASE {copy} WITH (FORCE)")
