"""Who may do what is what is written in privileges.csv, whatever else a change gives or takes."""

import os

import asyncpg

from allocator import migrate
from tests.sql import privileges
from tests.support.database import Database

ACCEPT = "LABLINK_ACCEPT_PRIVILEGES"
LOOK = f"""

Look at each line: should that role be able to do this? GRANTs are in allocator/sql/functions/99_grants.sql and in
allocator/bootstrap.py; what is new belongs to nobody but its owner before it stands there. If all is as you mean it:
{ACCEPT}=1 make test ARGS="tests/sql/test_privileges.py", and commit tests/sql/privileges.csv.
"""

OTHERS_OWN = """
    SELECT o.oid::regclass::text FROM pg_class o JOIN pg_namespace n ON n.oid = o.relnamespace
    WHERE n.nspname IN ('public', 'client_api') AND o.relowner <> 'lablink'::regrole
    UNION ALL
    SELECT o.oid::regprocedure::text FROM pg_proc o JOIN pg_namespace n ON n.oid = o.pronamespace
    WHERE n.nspname IN ('public', 'client_api') AND o.proowner <> 'lablink'::regrole
"""


async def test_each_role_may_do_what_the_table_says_and_nothing_else(
    database: Database, owner: asyncpg.Connection
) -> None:
    found = await privileges.matrix(owner, (await database.vm()).role)
    if os.environ.get(ACCEPT):
        privileges.accept(found)

    differing = list(privileges.differences(found, privileges.expected()))

    assert not differing, "\n".join(differing) + LOOK


async def test_a_right_that_is_given_or_taken_is_told_with_its_role_and_object(
    database: Database, owner: asyncpg.Connection
) -> None:
    role = (await database.vm()).role
    before = await privileges.matrix(owner, role)
    await owner.execute("GRANT SELECT (email) ON leases TO lablink_client")
    await owner.execute("REVOKE SELECT ON vms FROM lablink_reader")
    await owner.execute("CREATE TABLE loose (); GRANT INSERT ON loose TO PUBLIC")

    told = list(privileges.differences(await privileges.matrix(owner, role), before))

    assert told == [
        "column public.leases.email: lablink_client may SELECT; checked in is nothing",
        "column public.leases.email: a machine may SELECT; checked in is nothing",
        "table public.loose: is new; lablink_app: INSERT, lablink_reader: INSERT, lablink_client: INSERT, "
        "a machine: INSERT, everybody: INSERT",
        "table public.vms: lablink_reader may do nothing; checked in is SELECT",
    ]


async def test_a_right_that_slipped_to_machines_is_taken_back_by_the_next_migrate(
    database: Database, owner: asyncpg.Connection
) -> None:
    role = (await database.vm()).role
    for what in (
        "ALL ON lease_secrets",
        "SELECT (email) ON leases",
        "USAGE ON SEQUENCE events_id_seq",
        "EXECUTE ON FUNCTION end_lease",
        "USAGE ON SCHEMA public",
        "CREATE ON SCHEMA client_api",
    ):
        await owner.execute(f"GRANT {what} TO lablink_client")

    await migrate.upgrade(database.dsn("lablink"))

    assert list(privileges.differences(await privileges.matrix(owner, role), privileges.expected())) == []


async def test_everything_of_ours_is_the_owners(owner: asyncpg.Connection) -> None:
    assert await owner.fetch(OTHERS_OWN) == []
