"""`lablink db test`: the whole path through a database, and nothing left of it but the history."""

from tests.support.admin import answer, lablink
from tests.support.database import Database

COUNTS = (
    "SELECT (SELECT count(*) FROM vms), (SELECT count(*) FROM leases), (SELECT count(*) FROM pools), "
    "(SELECT count(*) FROM join_tokens), (SELECT count(*) FROM vm_roles), (SELECT count(*) FROM lease_secrets)"
)
BROKEN = "SELECT rule, what FROM broken_invariants()"


async def test_reading_changes_nothing(database: Database) -> None:
    owner = await database.connect()
    before = await owner.fetchval("SELECT count(*) FROM events")
    steps = await answer(database, "db", "test")
    assert [step["name"] for step in steps if not step["done"]] == []
    assert await owner.fetchval("SELECT count(*) FROM events") == before


async def test_the_full_trial_goes_all_the_way_and_is_undone(database: Database) -> None:
    await database.vm("vm-1")
    owner = await database.connect()
    before = await owner.fetchrow(COUNTS)

    steps = await answer(database, "db", "test", "--full")

    assert [step["name"] for step in steps if not step["done"]] == []
    assert "it hears of that" in [step["name"] for step in steps]
    assert await owner.fetchrow(COUNTS) == before
    assert await owner.fetch(BROKEN) == []
    assert await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'lease.ended'") == 1


async def test_a_step_that_fails_is_told_and_what_was_done_is_undone(database: Database) -> None:
    owner = await database.connect()
    before = await owner.fetchrow(COUNTS)
    await owner.execute("REVOKE EXECUTE ON FUNCTION request_vm FROM lablink_app")

    done = await lablink(database, "db", "test", "--full")

    assert done.returncode == 1
    assert "permission denied for function request_vm" in done.stdout
    assert "it claims the command" not in done.stdout
    assert "all of it is undone" in done.stdout
    assert await owner.fetchrow(COUNTS) == before


async def test_secrets_that_the_service_may_read_are_told(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("GRANT SELECT ON lease_secrets TO lablink_app")
    done = await lablink(database, "db", "test")
    assert done.returncode == 1
    assert "lablink_app may read lease_secrets: lablink db migrate takes that back" in done.stdout


async def test_what_a_killed_trial_left_is_removed_by_the_next(database: Database) -> None:
    owner = await database.connect()
    before = await owner.fetchrow(COUNTS)
    await owner.execute("SELECT ensure_pool('lablink-test-killed', false, ARRAY['true'], 60, 60, 60)")
    await database.vm("lablink-test-killed", pool="lablink-test-killed")
    await answer(database, "db", "test", "--full")
    assert await owner.fetchrow(COUNTS) == before
