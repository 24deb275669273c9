"""A move to a server that nobody should go to, or can, is refused in a sentence."""

from tests.sql.steps import BOB, ask
from tests.support.admin import lablink
from tests.support.database import Database


async def test_a_target_that_does_not_answer_is_refused_in_a_sentence(database: Database) -> None:
    nowhere = "postgresql://postgres:x@127.0.0.1:1/postgres"

    done = await lablink(database, "db", "move", "--to", "env:TARGET", TARGET=nowhere)
    secret = await lablink(database, "db", "move", "--to", nowhere)

    assert (done.returncode, done.stderr) == (1, "The target does not let us in: connection refused.\n")
    assert secret.returncode == 2
    assert "--to takes no connection string" in secret.stderr
    assert (await ask(await database.connect("lablink_app"), BOB))["outcome"] == "created"


async def test_a_target_on_another_machine_is_reached_with_tls_or_not_at_all(database: Database) -> None:
    elsewhere = "postgresql://postgres:x@db.example.org/postgres?sslmode=disable"

    done = await lablink(database, "db", "move", "--to", "env:TARGET", TARGET=elsewhere)

    assert done.returncode == 2
    assert "database.ca_file: must name a file with the certificate authority" in done.stderr
