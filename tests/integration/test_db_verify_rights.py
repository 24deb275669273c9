"""`lablink db verify`: rights that nobody needs are named with the statements that take them back."""

from allocator.upkeep import verify
from allocator.upkeep.surroundings import Finding
from tests.support.database import Database


async def found(database: Database) -> list[Finding]:
    """What is wrong with the schema of a database of the test server."""
    return [each for each in await verify.findings(database.dsn("lablink")) if each.rule == "schema" and each.wrong]


async def test_rights_that_nobody_needs_are_taken_back_by_the_statements_that_are_named(database: Database) -> None:
    owner = await database.connect()
    await owner.execute("GRANT ALL ON vms, vm_status TO PUBLIC; GRANT SELECT (email) ON leases TO PUBLIC")
    await owner.execute("GRANT EXECUTE ON FUNCTION retire_vm TO PUBLIC; GRANT USAGE ON SEQUENCE vms_id_seq TO PUBLIC")
    wrong = await found(database)
    assert len(wrong) == 5  # one for each role and thing, however many rights
    for each in wrong:
        assert await owner.execute(each.cure) == "REVOKE"
    assert await found(database) == []
