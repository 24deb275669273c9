"""Roles and database on an empty server: complete, repeatable, closed to the public, possible for a managed service."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.local.postgres import Server, running_server
from client.scram import verifier
from tests.support.database import UNHURRIED, Database
from tests.support.server import UNSAFE_AND_FAST, TestServer, fresh_server

PASSWORDS = {"lablink": "owner", "lablink_app": "app"}


@pytest_asyncio.fixture
async def empty(tmp_path: Path, server: TestServer) -> AsyncIterator[Server]:
    """A server of its own, of the version that the session tests."""
    async with fresh_server(tmp_path, server.version) as own:
        yield own


async def ask(dsn: str, *statements: str) -> object:
    connection = await asyncpg.connect(dsn, server_settings=UNHURRIED)
    try:
        answers = [await connection.fetchval(statement) for statement in statements]
        return answers[-1]
    finally:
        await connection.close()


async def test_prepare_may_be_repeated_and_by_several_at_once(empty: Server) -> None:
    dsn = empty.dsn()
    await asyncio.gather(*(bootstrap.prepare(dsn, PASSWORDS) for _ in range(3)))
    assert await bootstrap.prepare(dsn, PASSWORDS) == []
    assert await ask(empty.dsn("lablink", "owner", "lablink_db"), "SELECT current_user::text") == "lablink"


async def test_a_new_password_replaces_the_old_one(empty: Server) -> None:
    await bootstrap.prepare(empty.dsn(), PASSWORDS)
    await bootstrap.prepare(empty.dsn(), {"lablink_app": "changed"})
    assert await ask(empty.dsn("lablink_app", "changed", "lablink_db"), "SELECT 1") == 1
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(empty.dsn("lablink_app", "app", "lablink_db"), "SELECT 1")


async def test_only_the_owner_has_power_and_nobody_is_superuser(empty: Server) -> None:
    await bootstrap.prepare(empty.dsn(), PASSWORDS)
    powers = await ask(
        empty.dsn(),
        "SELECT string_agg(rolname || ' ' || rolsuper || rolcreaterole || rolcanlogin, ', ' ORDER BY rolname) "
        "FROM pg_roles WHERE rolname LIKE 'lablink%'",
    )
    assert powers == (
        "lablink falsetruetrue, lablink_app falsefalsetrue, "
        "lablink_client falsefalsefalse, lablink_reader falsefalsetrue"
    )


@pytest.mark.parametrize("database", ["postgres", "template1"])
async def test_the_service_connects_to_no_other_database(empty: Server, database: str) -> None:
    await bootstrap.prepare(empty.dsn(), PASSWORDS)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(empty.dsn("lablink_app", "app", database))


async def test_dashboards_leave_connections_to_others(empty: Server) -> None:
    await bootstrap.prepare(empty.dsn(), {"lablink_reader": "reader"})
    async with AsyncExitStack() as opened:
        for _ in range(bootstrap.READERS_AT_ONCE):
            one = await asyncpg.connect(empty.dsn("lablink_reader", "reader", "lablink_db"))
            opened.push_async_callback(one.close)

        with pytest.raises(asyncpg.TooManyConnectionsError, match="for role"):
            await asyncpg.connect(empty.dsn("lablink_reader", "reader", "lablink_db"))


async def test_a_managed_services_master_user_prepares_as_well(empty: Server) -> None:
    await ask(empty.dsn(), "CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD 'master'")
    refused = await bootstrap.prepare(empty.dsn("master", "master"), PASSWORDS)
    assert set(refused) <= set(bootstrap.COMFORTS)
    assert await migrate.upgrade(empty.dsn("lablink", "owner", "lablink_db")) is not None
    await _enrols(empty)


async def test_the_master_user_may_be_the_owner_itself(empty: Server) -> None:
    await ask(empty.dsn(), "CREATE ROLE lablink LOGIN CREATEROLE CREATEDB PASSWORD 'owner'")
    dsn = empty.dsn("lablink", "owner")
    for _ in range(2):
        assert set(await bootstrap.prepare(dsn, {"lablink_app": "app"})) <= set(bootstrap.COMFORTS)
    assert await migrate.upgrade(empty.dsn("lablink", "owner", "lablink_db")) is not None
    await _enrols(empty)


async def test_a_server_that_logs_statements_does_not_log_what_the_service_gives_them(
    tmp_path: Path, server: TestServer
) -> None:
    chatty = {"log_min_duration_statement": "0", "log_error_verbosity": "default"} | UNSAFE_AND_FAST
    async with running_server(tmp_path, version=server.version, settings=chatty) as own:
        await bootstrap.prepare(own.dsn(), PASSWORDS)
        app = await asyncpg.connect(own.dsn("lablink_app", "app", "lablink_db"), server_settings=UNHURRIED)
        assert await app.fetchval("SELECT $1::text AS code", "4/0AVG7fiQ") == "4/0AVG7fiQ"
        await app.close()

    logged = (tmp_path / "postgres.log").read_text()
    assert "SELECT $1::text AS code" in logged
    assert "4/0AVG7fiQ" not in logged


async def _enrols(server: Server) -> None:
    """A machine gets its role from an owner whom no superuser helped."""
    token = hashlib.sha256(b"token").digest()
    await ask(
        server.dsn("lablink", "owner", "lablink_db"), "SELECT invite_vm('vm-1', 'default', sha256('token'), 3600)"
    )
    app = await asyncpg.connect(server.dsn("lablink_app", "app", "lablink_db"), server_settings=UNHURRIED)
    try:
        assert await app.fetchval("SELECT role FROM enrol_vm($1, $2)", token, verifier("secret"))
    finally:
        await app.close()


async def test_nothing_is_anybodys_by_default(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("CREATE TABLE later (x int); CREATE FUNCTION later() RETURNS int LANGUAGE sql RETURN 1")
    app = await database.connect("lablink_app")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch("SELECT * FROM later")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.fetch("SELECT later()")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("CREATE TABLE mine (x int)")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await app.execute("CREATE TEMPORARY TABLE mine (x int)")


async def test_a_machine_may_call_client_api_and_nothing_else(database: Database) -> None:
    client = await (await database.vm()).connect()
    for statement in (
        "SELECT * FROM public.vms",
        "SELECT public.unassigned_vms_count()",
        "CREATE TEMPORARY TABLE t ()",
        "SELECT lo_create(0)",
        "SELECT lo_creat(-1)",
        "SELECT lo_from_bytea(0, 'x')",
        "SELECT pg_logical_emit_message(false, 'x', 'x')",
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_try_advisory_xact_lock_shared(1, 2)",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await client.execute(statement)
    assert await client.fetchval("SELECT status FROM client_api.hello(0, NULL)") == "available"
