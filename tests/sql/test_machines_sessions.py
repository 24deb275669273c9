"""What a machine's sessions may hold and for how long: few of them, no lock and no transaction that others wait for."""

import asyncpg
import pytest

from tests.sql.steps import ADA, ask, is_cut_off, machine, row_of
from tests.support.database import Database


async def test_a_machine_sees_no_other_sessions_statement(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)

    seen = await vm.connection.fetch("SELECT query FROM pg_stat_activity WHERE usename = 'lablink'")

    assert {row["query"] for row in seen} == {"<insufficient privilege>"}


async def test_a_machine_has_three_connections_at_most(database: Database, owner: asyncpg.Connection) -> None:
    vm = await database.vm("vm-1")
    for _ in range(3):
        await vm.connect()

    with pytest.raises(asyncpg.TooManyConnectionsError):
        await vm.connect()


@pytest.mark.parametrize("name", ["postgres", "template1"])
async def test_a_machine_can_log_in_to_no_other_database(
    database: Database, owner: asyncpg.Connection, name: str
) -> None:
    vm = await database.vm("vm-1")

    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await asyncpg.connect(vm.dsn, database=name)


async def open_advisory_locks(database: Database) -> None:
    """Makes them everybody's, as they are on a managed service."""
    await (await database.connect("postgres")).execute("GRANT EXECUTE ON FUNCTION pg_advisory_lock(bigint) TO PUBLIC")


async def test_a_machines_locks_do_not_stop_the_sweeps(database: Database, owner: asyncpg.Connection) -> None:
    vm = await machine(database)
    await open_advisory_locks(database)
    await vm.connection.execute("SELECT pg_advisory_lock(hashtextextended('lablink sweep queue', 0))")
    await owner.execute("SET lock_timeout = '1s'")
    await owner.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", ADA)

    assert await owner.fetchval("SELECT sweep_queue()") == 1


async def test_a_machine_that_holds_an_advisory_lock_is_cut_off(database: Database, owner: asyncpg.Connection) -> None:
    hostile = await machine(database, "vm-1")
    await open_advisory_locks(database)
    await hostile.connection.execute("SELECT pg_advisory_lock(1)")

    assert await owner.fetchval("SELECT cut_sessions(10)") == 1

    assert await is_cut_off(hostile.connection)


async def test_a_machine_that_keeps_a_transaction_open_is_cut_off_and_the_queue_goes_on(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    hostile, honest = await machine(database, "vm-1"), await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'cleaning'")
    await ask(service)
    await hostile.connection.execute("BEGIN")
    await hostile.cleaned(1)

    cut = await owner.fetchval("SELECT cut_sessions(0)")

    assert cut == 1
    assert await is_cut_off(hostile.connection)
    await owner.fetchval("SELECT id FROM vms WHERE hostname = 'vm-1' FOR UPDATE")
    assert await honest.cleaned(1) == "in-use"
    assert (await row_of(owner, "vm-2"))["email"] == ADA


async def test_who_only_listens_or_waits_between_statements_is_not_cut_off(
    database: Database, owner: asyncpg.Connection
) -> None:
    vm = await machine(database)
    await vm.connection.execute("LISTEN vm_updates")
    await owner.execute("BEGIN")

    assert await owner.fetchval("SELECT cut_sessions(0)") == 0
    await owner.execute("ROLLBACK")
