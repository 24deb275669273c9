"""`lablink db connections, kill-idle, slow, locks, listeners, sizes, vacuum, reindex`: on real sessions and tables."""

import asyncio
import re
from pathlib import Path

import asyncpg
import pytest

from allocator.local.postgres import running_server
from allocator.upkeep import activity, tables
from allocator.upkeep.activity import Wait, without_literals
from tests.support import LIMIT_SECONDS
from tests.support.admin import answer, lablink
from tests.support.database import Database
from tests.support.doors import version_with_tls
from tests.support.server import UNSAFE_AND_FAST
from tests.support.service import ready, running_service, settings_for
from tests.support.upkeep import ignore


async def _wait_for_lock(owner: asyncpg.Connection) -> Wait:
    async with asyncio.timeout(LIMIT_SECONDS):
        while not (found := await activity.waits(owner)):
            pass
    return found[0]


@pytest.mark.parametrize(
    ("statement", "shown"),
    [
        ("SELECT 1", "SELECT 1"),
        ("ALTER ROLE x\n  PASSWORD 'hunter2'", "ALTER ROLE x PASSWORD '…'"),
        ("SELECT 'it''s', $$hunter2$$, $t$hunter2$t$", "SELECT '…', '…', '…'"),
        (r"SELECT E'it\'s hunter2', 1", "SELECT '…', 1"),
        ("UPDATE vms SET crd_command = '--pin=123456 cut off by the serv", "UPDATE vms SET crd_command = '…'"),
    ],
)
def test_a_statement_is_shown_without_its_literals(statement: str, shown: str) -> None:
    assert without_literals(statement) == shown


def test_a_long_statement_is_shown_in_part() -> None:
    assert len(without_literals("SELECT " + "x, " * 200)) == activity.SHOWN_CHARACTERS


async def test_connections_say_who_is_there_and_show_no_secret(database: Database) -> None:
    machine = await database.vm("vm-1")
    await machine.connect()
    other = await database.connect("lablink", application_name="psql")
    await other.execute("SELECT '--pin=123456'")

    shown = await lablink(database, "db", "connections")

    assert "vm-1" in shown.stdout
    assert "psql" in shown.stdout
    assert "SELECT '…'" in shown.stdout
    assert "123456" not in shown.stdout


async def test_kill_idle_ends_who_is_idle_and_says_whose_it_was(database: Database) -> None:
    idle = await database.connect("lablink", application_name="forgotten")
    await idle.execute("SELECT 1")

    none = await lablink(database, "db", "kill-idle")
    assert none.stdout.strip() == "Nobody has been idle for 10 min."
    some = await lablink(database, "db", "kill-idle", "--older", "0s")

    assert "Ended forgotten (lablink, process" in some.stdout
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)):
        await idle.execute("SELECT 1")


async def test_kill_idle_leaves_open_transactions_unless_it_is_asked_to(database: Database) -> None:
    owner, open_one = await database.connect(), await database.connect()
    await open_one.execute("BEGIN")
    pid = open_one.get_server_pid()

    assert pid not in [each.session.pid for each in await activity.cut_idle(owner, 0)]
    assert pid in [each.session.pid for each in await activity.cut_idle(owner, 0, in_transaction=True) if each.done]


async def test_kill_idle_says_whom_it_may_not_end(database: Database) -> None:
    superuser = await database.connect("postgres", application_name="root's own")
    await superuser.execute("SELECT 1")

    done = await lablink(database, "db", "kill-idle", "--older", "0s")

    assert done.returncode == 1
    assert "Did not end root's own" in done.stdout
    assert await superuser.fetchval("SELECT 1") == 1


@pytest.mark.parametrize("older", ["soon", "10", ""])
async def test_kill_idle_with_a_length_of_time_that_is_none(database: Database, older: str) -> None:
    done = await lablink(database, "db", "kill-idle", "--older", older)
    assert done.returncode == 2
    assert "for example 10m" in done.stderr


async def test_an_allocator_that_was_cut_listens_again_by_itself(database: Database, tmp_path: Path) -> None:
    owner = await database.connect()
    async with running_service(settings_for(database, tmp_path)) as running:
        await ready(running.service)
        before = {each.pid for each in (await activity.listeners(owner)).sessions}
        assert before
        async with asyncio.timeout(LIMIT_SECONDS):
            while not {each.session.pid for each in await activity.cut_idle(owner, 0) if each.done} & before:
                pass  # it was looking at something, for which it is not idle
            while not {each.pid for each in (await activity.listeners(owner)).sessions} - before:
                pass


async def test_who_left_a_transaction_open_is_known(database: Database) -> None:
    owner = await database.connect()
    forgetful = await database.connect("lablink", application_name="psql")
    async with forgetful.transaction():
        await forgetful.execute("SELECT FROM pools FOR UPDATE")

        assert [each.pid for each in await activity.left_open(owner, 0)] == [forgetful.get_server_pid()]
        assert await activity.left_open(owner, 3600) == []

    assert await activity.left_open(owner, 0) == []


async def test_locks_tell_in_words_who_waits_for_whom(database: Database) -> None:
    await database.vm("vm-1")
    owner = await database.connect()
    holder = await database.connect("lablink", application_name="psql")
    waiter = await database.connect("lablink", application_name="dashboard")
    async with holder.transaction():
        await holder.execute("SELECT FROM vms WHERE hostname = 'vm-1' FOR UPDATE")
        waiting = asyncio.ensure_future(waiter.execute("SELECT FROM vms WHERE hostname = 'vm-1' FOR UPDATE"))
        wait = await _wait_for_lock(owner)
        slow_now = await activity.slow(owner, 0)
        shown = await answer(database, "db", "locks")
        slow = await answer(database, "db", "slow", "--over", "0s")
    await waiting

    assert (wait.pid, wait.blocker) == (waiter.get_server_pid(), holder.get_server_pid())
    assert wait.what.startswith("dashboard (lablink, process")
    assert "held by psql (lablink, process" in wait.what
    assert "which is idle in transaction" in wait.what
    assert [each["blocker"] for each in shown] == [holder.get_server_pid()]
    assert waiter.get_server_pid() in [each.pid for each in slow_now]
    assert waiter.get_server_pid() in [each["pid"] for each in slow["now"]]


async def test_statements_that_the_server_counted_show_no_literal(tmp_path: Path) -> None:
    settings = {**UNSAFE_AND_FAST, "shared_preload_libraries": "pg_stat_statements"}
    async with running_server(tmp_path, version=version_with_tls(), settings=settings) as own:
        superuser = await asyncpg.connect(own.dsn())
        await superuser.execute("CREATE EXTENSION pg_stat_statements")
        await superuser.execute("CREATE ROLE somebody PASSWORD 'hunter2'")
        counted = await activity.statements(superuser)
        await superuser.close()

    assert counted
    assert "CREATE ROLE somebody PASSWORD '…'" in [each.query for each in counted]


async def test_listeners_name_the_machines_that_are_not_connected(database: Database) -> None:
    await database.vm("vm-away")
    here = await (await database.vm("vm-here")).connect()
    await here.execute("LISTEN vm_updates")

    shown = await lablink(database, "db", "listeners")

    assert "LISTEN vm_updates" in shown.stdout
    assert "vm-away is not connected." in shown.stdout
    assert "vm-here is not connected." not in shown.stdout
    assert "The queue of notifications is 0.0% full." in shown.stdout


async def test_sizes_are_told_of_every_table(database: Database) -> None:
    found = await answer(database, "db", "sizes")
    assert found["database"] == database.name
    assert found["bytes"] > sum(table["total_bytes"] for table in found["tables"])
    assert {"vms", "leases", "vm_heartbeats"} <= {table["table"] for table in found["tables"]}
    assert "altogether" in (await lablink(database, "db", "sizes")).stdout


@pytest.mark.parametrize("command", [["vacuum"], ["vacuum", "vms", "--full"], ["reindex"], ["reindex", "leases"]])
async def test_tables_are_put_into_shape(database: Database, command: list[str]) -> None:
    done = await lablink(database, "db", *command)
    assert done.returncode == 0, done.stderr
    assert "Seconds" in done.stdout
    assert re.search(r" \d+\.\d\d\s*$", done.stdout)


@pytest.mark.parametrize("name", ["nonsense", "vms; DROP TABLE vms", "pg_class", "'"])
async def test_a_table_that_is_not_there_is_said_to_be_so(database: Database, name: str) -> None:
    done = await lablink(database, "db", "vacuum", name)
    assert done.returncode == 4
    assert "lablink db sizes" in done.stderr


async def test_what_an_interrupted_reindex_left_is_removed_by_the_next(database: Database) -> None:
    owner, superuser = await database.connect(), await database.connect("postgres")
    await owner.execute("CREATE INDEX vms_free_ccnew ON vms (pool)")
    await superuser.execute("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'vms_free_ccnew'::regclass")

    await tables.reindex(owner, "vms", ignore)

    assert await owner.fetchval("SELECT to_regclass('vms_free_ccnew')") is None


async def test_a_table_that_somebody_keeps_is_not_waited_for_for_long(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CAREFULLY", tables.CAREFULLY.replace("'5s'", "'50ms'"))
    owner, holder = await database.connect(), await database.connect()
    async with holder.transaction():
        await holder.execute("LOCK TABLE sweeps")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await tables.vacuum(owner, "sweeps", ignore)
