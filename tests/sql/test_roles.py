"""A machine's role can touch its eleven functions and nothing else; what else there is, the catalogue says."""

import re
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator import calls, machines, standing, store
from tests.sql.steps import ask, machine
from tests.support.database import Database

VERBS = {"hello", "claim", "report", "cleaned", "unhealthy", "well", "wants_new_password", "change_password", "booted"}
FOR_THE_HUB = {"transport", "keep_hub_token"}
OF_THE_VERSION_BEFORE = {"ensure_pool", "ensure_transport", "check_version"}
"""What only allocators of the version before call, which go on while they are replaced one by one."""
OF_VIEWS_FOR_ALL = {"fresh_for", "hello_period", "fair_queue", "fair_turns", "costs", "month_of", "month_after"}
OF_A_VIEW = OF_VIEWS_FOR_ALL | {"extensible_until", "seconds_left", "reached", "passed_after", "forecast_moments"}
"""What a view calls as whoever reads it."""

OURS = "n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'"
RELATIONS = f"""
    SELECT c.oid::regclass::text AS name, c.relkind::text AS kind
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE {OURS} AND c.relkind IN ('r', 'v', 'm', 'S', 'p', 'f')
"""
FUNCTIONS = f"""
    SELECT n.nspname AS schema, p.proname AS name, p.oid::regprocedure::text AS signature,
           format('SELECT %I.%I(%s)', n.nspname, p.proname,
                  (SELECT string_agg('NULL::' || t::regtype, ', ') FROM unnest(p.proargtypes) AS t)) AS call
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE {OURS}
"""
STATEMENTS = {
    "S": ["SELECT nextval('{}')", "SELECT setval('{}', 1)", "SELECT last_value FROM {}"],
    "v": ["SELECT FROM {}"],
    "m": ["SELECT FROM {}", "REFRESH MATERIALIZED VIEW {}"],
    "r": [
        "SELECT FROM {}",
        "SELECT FROM {} FOR UPDATE",
        "DELETE FROM {}",
        "TRUNCATE {}",
        "INSERT INTO {} DEFAULT VALUES",
        "DO $$ BEGIN LOCK TABLE {} IN ACCESS SHARE MODE; END $$",
        "CREATE INDEX ON {} ((1))",
        "ALTER TABLE {} ADD COLUMN x int",
    ],
}
STATEMENTS["p"] = STATEMENTS["r"]


@pytest_asyncio.fixture
async def catalogue(database: Database) -> asyncpg.Connection:
    """The owner, with an empty search path, so that every name it prints is complete."""
    return await database.connect("lablink", search_path="")


async def test_a_machines_role_can_touch_no_table_view_or_sequence(
    database: Database, catalogue: asyncpg.Connection
) -> None:
    vm = await machine(database)
    relations = await catalogue.fetch(RELATIONS)

    assert len(relations) > 10
    for relation in relations:
        for statement in STATEMENTS[relation["kind"]]:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await vm.connection.execute(statement.format(relation["name"]))


async def test_a_machines_role_can_run_its_functions_and_no_other(
    database: Database, catalogue: asyncpg.Connection
) -> None:
    vm = await machine(database)
    functions = await catalogue.fetch(FUNCTIONS)

    verbs = {f["name"] for f in functions if f["schema"] == "client_api"}
    others = [f["call"] for f in functions if f["schema"] != "client_api"]

    assert verbs == VERBS | FOR_THE_HUB
    assert len(others) > 30
    for call in others:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vm.connection.execute(call)


async def test_a_machines_role_was_given_its_functions_and_nothing_else(
    database: Database, owner: asyncpg.Connection
) -> None:
    """As the test before, but what is refused only because the schema is closed counts as given."""
    vm = await machine(database)

    functions = await owner.fetch(f"{FUNCTIONS} AND has_function_privilege($1, p.oid, 'EXECUTE')", vm.vm.role)
    relations = await owner.fetch(
        f"{RELATIONS} AND c.relkind <> 'S' AND has_any_column_privilege($1, c.oid, 'SELECT, INSERT, UPDATE')",
        vm.vm.role,
    )

    assert {row["name"] for row in functions} == VERBS | FOR_THE_HUB
    assert relations == []


async def test_a_machines_role_can_make_nothing(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)

    for statement in (
        "CREATE TEMPORARY TABLE t ()",
        "CREATE TABLE public.t ()",
        "CREATE TABLE client_api.t ()",
        "CREATE FUNCTION client_api.f() RETURNS int LANGUAGE sql RETURN 1",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
        "CREATE DATABASE mine",
        "ALTER FUNCTION client_api.claim(bigint) RESET ALL",
    ):
        with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)):
            await vm.connection.execute(statement)


async def test_a_machines_role_can_become_nobody_else(database: Database, owner: asyncpg.Connection) -> None:
    vm, other = await machine(database), await machine(database, "vm-2")

    for statement in (
        f"SET ROLE {other.vm.role}",
        "SET ROLE lablink",
        "SET ROLE lablink_app",
        f"SET SESSION AUTHORIZATION {other.vm.role}",
        f"ALTER ROLE {other.vm.role} PASSWORD 'x'",
        f"ALTER ROLE {vm.vm.role} CONNECTION LIMIT 100",
        f"ALTER ROLE {vm.vm.role} CREATEROLE",
        f"GRANT {other.vm.role} TO {vm.vm.role}",
        "GRANT pg_read_all_data TO CURRENT_USER",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vm.connection.execute(statement)


async def test_a_machine_that_takes_the_groups_role_is_still_itself(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.connection.execute("SET ROLE lablink_client")

    assert (await vm.hello())["hostname"] == "vm-1"


async def test_a_machine_cannot_sign_the_history_with_another_name(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.connection.execute("SET lablink.actor = 'web'")
    await ask(service)

    await vm.claim(1)

    assert await owner.fetchval("SELECT actor FROM events WHERE kind = 'lease.claimed'") == "vm-1"


async def test_no_setting_of_a_machines_session_changes_what_the_functions_do(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await ask(service)
    for setting in (
        "search_path = pg_temp, client_api",
        "standard_conforming_strings = off",
        "escape_string_warning = off",
        "transform_null_equals = on",
        "array_nulls = off",
        "quote_all_identifiers = on",
        "timezone = 'Pacific/Kiritimati'",
        "datestyle = 'German'",
        "default_transaction_isolation = 'serializable'",
    ):
        await vm.connection.execute(f"SET {setting}")

    lease = await vm.run()

    assert await owner.fetchval("SELECT status FROM leases WHERE id = $1", lease) == "active"


async def test_nothing_of_ours_is_open_to_everybody(owner: asyncpg.Connection) -> None:
    """Types and the schema's name apart: what PUBLIC may do with relations, functions and schemas is nothing."""
    open_to_all = await owner.fetch(f"""
        SELECT p.oid::regprocedure::text AS what FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace,
             aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a WHERE {OURS} AND a.grantee = 0
        UNION ALL
        SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace,
             aclexplode(c.relacl) a WHERE {OURS} AND a.grantee = 0
        UNION ALL
        SELECT n.nspname FROM pg_namespace n, aclexplode(n.nspacl) a WHERE {OURS} AND a.grantee = 0
    """)

    assert open_to_all == []


async def test_functions_with_the_owners_rights_look_up_names_where_nobody_else_can_put_them(
    owner: asyncpg.Connection,
) -> None:
    loose = await owner.fetch(f"""
        SELECT p.oid::regprocedure::text FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE {OURS} AND p.prosecdef
          AND NOT coalesce(p.proconfig, '{{}}') && ARRAY['search_path=pg_catalog, public, pg_temp',
                                                         'search_path=pg_catalog, pg_temp']
    """)
    writable = await owner.fetch("""
        SELECT rolname FROM pg_roles WHERE has_schema_privilege(oid, 'public', 'CREATE')
          AND NOT rolsuper AND rolname NOT IN ('lablink') AND rolname !~ '^pg_'
    """)

    assert loose == []
    assert writable == []


@pytest.mark.parametrize("role", ["lablink_app", "lablink_reader"])
async def test_the_service_and_the_readers_change_nothing_but_through_functions_and_see_no_secret(
    database: Database, catalogue: asyncpg.Connection, role: str
) -> None:
    connection = await database.connect(role)
    tables = [r["name"] for r in await catalogue.fetch(RELATIONS) if r["kind"] == "r"]

    for table in tables:
        for statement in (f"DELETE FROM {table}", f"TRUNCATE {table}", f"INSERT INTO {table} DEFAULT VALUES"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    for statement in ("SELECT FROM lease_secrets", "SELECT token_sha256 FROM leases", "SELECT FROM join_tokens"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)


async def test_the_service_may_execute_what_it_calls_and_nothing_else(owner: asyncpg.Connection) -> None:
    functions = await owner.fetch(f"SELECT * FROM ({FUNCTIONS}) f ORDER BY name")
    given = await owner.fetch(f"{FUNCTIONS} AND has_function_privilege('lablink_app', p.oid, 'EXECUTE')")

    asks = "".join(Path(str(module.__file__)).read_text() for module in (calls, machines, store, standing))
    called = set(re.findall(r"\b(\w+)\(", asks)) & {row["name"] for row in functions}
    together = {f"hub_{verb}" for verb in calls.TOGETHER}
    assert {row["name"] for row in given} == called | together | OF_THE_VERSION_BEFORE | OF_A_VIEW


async def test_readers_see_no_output_of_commands(database: Database, owner: asyncpg.Connection) -> None:
    reader = await database.connect("lablink_reader")

    for statement in ("SELECT output FROM leases", "SELECT FROM lease_views"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(statement)


async def test_readers_can_run_what_their_views_need_and_ask_for_the_head_of_the_history(
    database: Database, catalogue: asyncpg.Connection
) -> None:
    reader = await database.connect("lablink_reader")
    theirs = {"clock", "history_head"} | OF_VIEWS_FOR_ALL

    for function in await catalogue.fetch(FUNCTIONS):
        if function["name"] in theirs:
            continue
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await reader.execute(function["call"])
