"""`lablink verify` of the history, `db archive` and `db archives`, as an admin types them."""

import getpass
import json
from pathlib import Path

from tests.sql.history import happen, seal, tamper
from tests.support.admin import answer, lablink
from tests.support.database import Database

JULY = "'2026-07-10 00:00:00+00'"


async def test_verify_names_the_event_that_was_changed_and_takes_a_head(database: Database) -> None:
    owner, service = await database.connect(), await database.connect("lablink_app")
    (event,) = await happen(owner)
    await seal(service)
    head = await owner.fetchrow("SELECT seal, sha256 FROM history_head()")
    assert head is not None
    option = f"--head={head['seal']}:{head['sha256']}"
    well = await lablink(database, "verify", option)
    forged = await lablink(database, "verify", option[:-1])
    other = await lablink(database, "verify", f"--head=1:{'0' * 64}")
    await tamper(database, f"UPDATE events SET kind = 'x' WHERE id = {event}")
    broken = await lablink(database, "verify", "--json")
    later = await lablink(database, "verify", "--since=2100-01-01")
    never = await lablink(database, "verify", "--since=yesterday")

    assert (well.returncode, well.stdout) == (0, "Everything is as it must be.\n"), well.stderr
    assert (forged.returncode, "is no head of the history" in forged.stderr) == (2, True)
    assert (other.returncode, "was rewritten" in other.stdout) == (1, True)
    assert [(row["rule"], row["what"]) for row in json.loads(broken.stdout)] == [
        ("history", f"event {event} was changed after it was sealed (seal 1).")
    ]
    assert later.returncode == 0
    assert (never.returncode, never.stderr) == (2, "yesterday is no date: give 2026-11-01, or 2026-11-01T06:30:00.\n")


async def test_a_month_is_archived_listed_and_checked(database: Database, tmp_path: Path) -> None:
    owner, service = await database.connect(), await database.connect("lablink_app")
    await happen(owner, 3, JULY)
    await service.fetchval("SELECT sweep_months()")
    await seal(service)

    (moved,) = await answer(database, "db", "archive", "--before=2026-08", f"--to={tmp_path}")
    (listed,) = await answer(database, "db", "archives", "list")
    checked = await lablink(database, "db", "archives", "verify", moved["file"])
    Path(moved["file"]).write_bytes(b"nonsense")
    spoilt = await lablink(database, "db", "archives", "verify", moved["file"])

    assert (moved["month"], moved["events"]) == ("2026-07", 3)
    assert (listed["sha256"], listed["archived_by"]) == (moved["sha256"], f"cli:{getpass.getuser()}")
    assert (checked.returncode, checked.stdout) == (0, "events-2026-07.jsonl.gz is what was sealed.\n"), checked.stderr
    assert (spoilt.returncode, "not the file that was archived" in spoilt.stdout) == (1, True)


async def test_an_archive_that_cannot_be_made_is_refused_in_a_sentence(database: Database, tmp_path: Path) -> None:
    for option in ("--before=2100-01", "--before=yesterday"):
        done = await lablink(database, "db", "archive", option, f"--to={tmp_path}")
        assert done.returncode in (1, 2)
        assert done.stderr.count("\n") == 1
