"""`lablink db verify`: what is not as the code makes it is said in words, with what mends it."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from allocator import migrate
from allocator.local.postgres_binaries import find_binaries
from allocator.upkeep import catalogue, verify
from allocator.upkeep.surroundings import Finding
from tests.support.admin import answer, lablink
from tests.support.database import Database
from tests.support.server import TestServer

ITS_OWN = {"settings"}
"""Findings that every test server has: nothing of a test run needs to survive a power cut."""

GUIDES_FUNCTION = """
CREATE OR REPLACE FUNCTION notify_vm_changes()
RETURNS trigger AS $$
BEGIN
  PERFORM pg_notify('vm_updates', row_to_json(NEW)::text);
  RETURN NEW;
END;
$$ LANGUAGE plpgsql;
"""
GUIDES_TRIGGER = """
CREATE TRIGGER vm_update_trigger
AFTER INSERT OR UPDATE ON vms
FOR EACH ROW
EXECUTE FUNCTION notify_vm_changes();
"""


async def found(database: Database, *, wrong: bool = True) -> list[Finding]:
    """What is not right about a database of the test server."""
    findings = await verify.findings(database.dsn("lablink"))
    return [each for each in findings if each.wrong is wrong and each.rule not in ITS_OWN]


async def told(database: Database, role: str, *statements: str) -> list[str]:
    """What is wrong after `role` ran these statements."""
    connection = await database.connect(role)
    for statement in statements:
        await connection.execute(statement)
    return [each.what for each in await found(database)]


async def test_a_new_database_is_as_it_must_be_and_nothing_is_left_of_the_comparison(database: Database) -> None:
    await database.vm("vm-1")
    assert await found(database) == []
    superuser = await database.connect("postgres")
    left = "SELECT count(*) FROM pg_database WHERE starts_with(datname, $1)"
    assert await superuser.fetchval(left, f"{database.name}_reference_") == 0


async def test_the_guides_own_function_is_noticed_and_undone_by_the_next_migrate(database: Database) -> None:
    assert await told(database, "lablink", GUIDES_FUNCTION) == [
        "The function public.notify_vm_changes() is not LabLink's own."
    ]
    assert [each.cure for each in await found(database)] == ["lablink db migrate"]
    await migrate.upgrade(database.dsn("lablink"))
    assert await found(database) == []


async def test_the_guides_own_trigger_is_noticed_and_undone_by_the_next_migrate(database: Database) -> None:
    drop = "DROP TRIGGER vm_update_trigger ON vms"
    wrong = await told(database, "lablink", GUIDES_FUNCTION, drop, GUIDES_TRIGGER)
    assert "The trigger vm_update_trigger on public.vms is not LabLink's own." in wrong
    await migrate.upgrade(database.dsn("lablink"))
    assert await found(database) == []


async def test_a_function_that_somebody_else_owns_is_mended_as_it_is_said(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER FUNCTION public.notify_vm_changes() OWNER TO postgres")
    (finding,) = [each for each in await found(database) if "not LabLink's own" in each.what]
    statement, _, then = finding.cure.partition(", then ")
    await superuser.execute(statement)
    assert then == "lablink db migrate"
    await migrate.upgrade(database.dsn("lablink"))
    assert await found(database) == []


@pytest.mark.parametrize(
    ("role", "statement", "what"),
    [
        ("lablink", "ALTER TABLE vms DISABLE TRIGGER vm_update_trigger", "vm_update_trigger on public.vms is off"),
        ("lablink", "DROP FUNCTION vm_hint", "function public.vm_hint(integer,text,text,bigint) is missing"),
        (
            "lablink",
            "ALTER TABLE vms DROP CONSTRAINT vms_available_is_clean",
            "vms_available_is_clean on public.vms is",
        ),
        ("lablink", "DROP INDEX leases_one_live_a_vm", "index public.leases_one_live_a_vm is missing"),
        ("lablink", "ALTER TABLE leases ALTER email DROP NOT NULL", "column public.leases.email is not LabLink's own"),
        (
            "lablink",
            "CREATE RULE quiet AS ON DELETE TO pools DO INSTEAD NOTHING",
            "rule quiet on public.pools is not one",
        ),
        (
            "lablink",
            "GRANT SELECT ON lease_secrets TO lablink_reader",
            "lablink_reader may SELECT table public.lease_sec",
        ),
        ("lablink", "GRANT SELECT (email) ON leases TO PUBLIC", "Everybody may SELECT column public.leases.email"),
        ("lablink", "REVOKE EXECUTE ON FUNCTION end_lease FROM lablink_app", "lablink_app may not EXECUTE function"),
        (
            "postgres",
            "ALTER FUNCTION end_lease SECURITY INVOKER",
            "function public.end_lease(uuid) is not LabLink's own",
        ),
        (
            "lablink",
            "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC",
            "rights on new tables of lablink is not",
        ),
        ("postgres", "GRANT lablink TO lablink_reader", "lablink_reader is a member of lablink and may do"),
        ("postgres", "GRANT pg_read_server_files TO lablink", "lablink is a member of pg_read_server_files and may"),
        ("postgres", "ALTER ROLE lablink_reader CONNECTION LIMIT -1", "lablink_reader may open any number of conn"),
        (
            "postgres",
            "ALTER DATABASE {name} SET session_replication_role = 'replica'",
            "role=replica is set for database",
        ),
        ("postgres", "GRANT CONNECT ON DATABASE {name} TO PUBLIC", "Everybody may connect to this database"),
        ("postgres", "REVOKE CONNECT ON DATABASE {name} FROM lablink_app", "lablink_app may not connect"),
    ],
)
async def test_what_somebody_changed_is_told_in_words(database: Database, role: str, statement: str, what: str) -> None:
    connection = await database.connect(role)
    await connection.execute(statement.format(name=database.name))
    findings = await verify.findings(database.dsn("lablink"))
    try:
        assert what in " ".join(each.what for each in findings if each.wrong)
    finally:
        if "lablink TO" in statement:  # roles belong to the whole server
            await connection.execute("REVOKE lablink FROM lablink_reader")
        elif "server_files" in statement:
            await connection.execute("REVOKE pg_read_server_files FROM lablink")
        elif "LIMIT" in statement:
            await connection.execute("ALTER ROLE lablink_reader CONNECTION LIMIT 10")


async def test_what_an_admin_added_is_mentioned_and_not_held_against_them(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("CREATE INDEX idx_vms_email ON vms(email); CREATE TABLE notes (what text)")
    await owner.execute("CREATE VIEW mine AS SELECT hostname FROM vms; ALTER TABLE vms ADD COLUMN rack text")
    assert await found(database) == []
    noted = [each.what for each in await found(database, wrong=False)]
    for thing in ("index public.idx_vms_email", "table public.notes", "view public.mine", "column public.vms.rack"):
        assert f"The {thing} is not one of LabLink's." in noted


async def test_no_machine_can_make_the_schema_look_wrong(database: Database) -> None:
    hostile = await (await database.vm()).connect()
    for role in ("CURRENT_USER", "lablink_client"):
        await hostile.execute(f"ALTER DEFAULT PRIVILEGES FOR ROLE {role} GRANT SELECT ON TABLES TO PUBLIC")

    assert await found(database) == []


async def test_a_dump_that_was_restored_is_not_called_different(database: Database, server: TestServer) -> None:
    programs, dsn = find_binaries(server.version).directory, database.dsn("postgres")
    dump = await asyncio.to_thread(_run, programs / "pg_dump", dsn)
    owner, superuser = await database.connect(), await database.connect("postgres")
    before = await catalogue.read(owner)
    await owner.execute("DROP SCHEMA client_api CASCADE")
    await superuser.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")
    await asyncio.to_thread(_run, programs / "psql", "--no-psqlrc", "--set=ON_ERROR_STOP=1", dsn, given=dump)

    after = await catalogue.read(owner)

    assert catalogue.differences(after, before) == []
    assert await found(database) == []


def _run(program: Path, *arguments: str, given: bytes = b"") -> bytes:
    done = subprocess.run([program, *arguments], input=given, capture_output=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


async def test_a_broken_invariant_is_among_what_is_found(database: Database) -> None:
    await database.vm("vm-1")
    superuser = await database.connect("postgres")
    await superuser.execute(
        "BEGIN; SET LOCAL session_replication_role = replica; "
        "UPDATE vms SET cleaned_epoch = cleaned_epoch - 1, epoch = epoch + 1, status = 'cleaning', "
        "updated_at = now() - interval '1 hour'; COMMIT"
    )
    assert [each.rule for each in await found(database)] == ["L4"]


async def test_a_database_of_an_earlier_version_is_only_told_to_migrate(database: Database) -> None:
    await migrate.downgrade(database.dsn("lablink"), "base")
    (finding,) = await verify.findings(database.dsn("lablink"))
    assert (finding.rule, finding.cure) == ("version", "lablink db migrate")


async def test_an_owner_who_may_make_no_database_is_told_what_was_not_compared(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER ROLE lablink NOCREATEDB")
    try:
        findings = await verify.findings(database.dsn("lablink"))
    finally:
        await superuser.execute("ALTER ROLE lablink CREATEDB")
    assert "The role lablink lacks CREATEDB." in [each.what for each in findings]
    assert {each.cure for each in findings if "lablink CREATEDB" in each.cure} == {
        "As a superuser: ALTER ROLE lablink CREATEDB"
    }
    assert "The schema was not compared" in " ".join(each.what for each in findings if not each.wrong)


async def test_too_few_connections_for_the_machines_are_noticed(database: Database) -> None:
    await database.vm("vm-1")
    findings = await verify.findings(database.dsn("lablink"), service_connections=10_000)
    assert "but 1 machines and the service need 10009" in " ".join(each.what for each in findings)


async def test_what_a_killed_comparison_left_is_dropped_by_the_next(database: Database) -> None:
    owner, name = await database.connect(), f"{database.name}_reference_left"
    await owner.execute(f"CREATE DATABASE {name}")
    await verify.findings(database.dsn("lablink"))
    assert not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name)


async def test_the_command_tells_all_of_it_and_fails(database: Database) -> None:
    await told(database, "lablink", "ALTER TABLE vms DISABLE TRIGGER vm_update_trigger")
    rows = await answer(database, "db", "verify", code=1)
    assert {"settings", "schema"} == {row["rule"] for row in rows if row["wrong"]}
    done = await lablink(database, "db", "verify")
    assert done.returncode == 1
    assert "fsync is off: a power cut can destroy the database." in done.stdout
    assert "ALTER TABLE public.vms ENABLE TRIGGER vm_update_trigger" in done.stdout
