"""What a claim writes: no index more than somebody reads, and who reads it finds what is theirs without the rest."""

import asyncpg
import pytest

from tests.sql.steps import ask, lease_of, machine
from tests.support.database import Database

OTHERS = """
    INSERT INTO leases (email, status, kind, vm_id, hostname, epoch, assigned_at, ended_at)
    SELECT 'o' || g || '@x.test', 'ended', 'job', 0, 'other', 0, clock(), clock() FROM generate_series(1, 2000) g;
    INSERT INTO events (actor, kind, vm_id, hostname)
    SELECT 'o', 'o.o', g, 'other-' || g FROM generate_series(2, 4000) g"""
"""Leases that are over, and what happened to other machines."""

BROKEN = '{"status": "failed", "reason": "unhealthy: check disk"}'
READ = """SELECT sum(seq_tup_read + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables
    WHERE relname = 'leases' OR starts_with(relname, 'events')"""


async def others(database: Database) -> asyncpg.Connection:
    """The connection of a superuser, to a database in which much has happened."""
    superuser = await database.connect("postgres")
    await superuser.execute(f"SET session_replication_role = replica; {OTHERS}; RESET session_replication_role")
    await superuser.execute("ANALYZE leases, events")
    return superuser


@pytest.mark.parametrize(
    "question",
    [
        "SELECT keeps_failing(v.id) FROM vms v",
        f"SELECT may_return(jsonb_populate_record(v, '{BROKEN}')) FROM vms v",
        "SELECT limit_jumps(v) FROM vms v",
        "SELECT status, count(*) FROM leases WHERE live GROUP BY status",
        "SELECT sweep_deadlines()",
        "SELECT id FROM leases WHERE pool = 'default' AND live AND expires_at > clock()",
        "SELECT * FROM request_before('a@x.test', 'default', sha256('key'), sha256('request'))",
    ],
)
async def test_what_is_asked_of_one_machine_or_of_live_leases_reads_no_others(
    database: Database, service: asyncpg.Connection, question: str
) -> None:
    await machine(database)
    await ask(service)
    superuser = await others(database)

    async with superuser.transaction():
        before = await superuser.fetchval(READ)
        await superuser.fetch(question)
        assert await superuser.fetchval(READ) - before < 100


async def test_a_lease_without_a_key_is_not_in_the_index_of_keys(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    size = "SELECT pg_relation_size(indexrelid) FROM pg_index WHERE indexrelid = 'leases_idempotency'::regclass"
    before = await owner.fetchval(size)

    asked = await ask(service)

    assert (await lease_of(owner, asked["lease_id"]))["status"] == "assigned"
    assert await owner.fetchval(size) == before
