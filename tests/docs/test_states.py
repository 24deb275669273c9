"""docs/states.md and the database list the same changes."""

from allocator.failure_words import FAILURES
from tests.docs.markdown import arrows, table
from tests.support.database import Database

STATES = "docs/states.md"


async def test_the_page_lists_every_change_of_a_machine_with_its_epoch_rule(database: Database) -> None:
    written = [(row["from"], row["to"], row["epoch"]) for row in table(STATES, "from", "to", "who", "when", "epoch")]
    owner = await database.connect("lablink")
    stored = await owner.fetch("SELECT from_status, to_status, epoch_rule FROM vm_transitions")
    assert sorted(written) == sorted(tuple(row) for row in stored)


async def test_the_page_lists_every_change_of_a_lease(database: Database) -> None:
    written = [(row["from"], row["to"]) for row in table(STATES, "from", "to", "who", "when")]
    owner = await database.connect("lablink")
    stored = await owner.fetch("SELECT from_status, to_status FROM lease_transitions")
    assert sorted(written) == sorted(tuple(row) for row in stored)


async def test_the_page_explains_every_status_of_a_machine(database: Database) -> None:
    explained = {row["status"] for row in table(STATES, "status", "what it means")}
    owner = await database.connect("lablink")
    stored = await owner.fetch(
        "SELECT from_status AS status FROM vm_transitions UNION SELECT to_status FROM vm_transitions"
    )
    assert explained == {row["status"] for row in stored}


def test_the_page_has_the_sentence_for_every_failure() -> None:
    written = {
        row["failure"]: row["what its holder reads"] for row in table(STATES, "failure", "what its holder reads")
    }
    assert written == FAILURES


def test_the_diagrams_draw_what_the_tables_list() -> None:
    """All but the ways to `retired`, which is said in words under the diagram."""
    machine, lease = arrows(STATES)
    listed = {(row["from"], row["to"]) for row in table(STATES, "from", "to", "who", "when", "epoch")}
    drawn = {(start.replace("_", "-"), end.replace("_", "-")) for start, end in machine}
    assert drawn == {(start, end) for start, end in listed if end != "retired" or start == "failed"}
    assert lease == {(row["from"], row["to"]) for row in table(STATES, "from", "to", "who", "when")}
