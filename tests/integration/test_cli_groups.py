"""`lablink groups`: lists in and out, codes that are shown once, and what each group has."""

import hashlib
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from tests.support.admin import answer, lablink
from tests.support.database import Database

ADA, BOB, CYD = "ada@example.org", "bob@example.org", "cyd@example.org"


@pytest_asyncio.fixture
async def course(owner: asyncpg.Connection) -> str:
    """A group that is there."""
    await owner.execute("INSERT INTO groups (name) VALUES ('course')")
    return "course"


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A list of two people."""
    listed = tmp_path / "people.csv"
    listed.write_text(f"Name;E-Mail\nAda;{ADA}\nBob;{BOB}\n")
    return listed


async def test_a_list_goes_in_comes_out_and_goes_in_again(database: Database, course: str, people: Path) -> None:
    taken = await answer(database, "groups", "import", course, str(people))
    out = (await lablink(database, "groups", "export", course)).stdout
    people.write_text(out)
    again = await answer(database, "groups", "import", course, str(people), "--replace")

    assert taken == {"name": course, "added": 2, "moved": 0, "already": 0, "removed": 0, "bad": []}
    assert out == f"email,group\n{ADA},course\n{BOB},course\n"
    assert (again["already"], again["added"], again["removed"]) == (2, 0, 0)


async def test_with_a_bad_line_nothing_is_taken_unless_it_is_to_be_left_out(
    database: Database, course: str, people: Path
) -> None:
    people.write_text(f"email\n{ADA}\nbob at home\n")

    refused = await lablink(database, "groups", "import", course, str(people))
    nobody = await answer(database, "groups", "export", course)
    skipped = await lablink(database, "groups", "import", course, str(people), "--skip-bad")

    assert refused.returncode == 1 and "line 3: An e-mail address" in refused.stderr and "--skip-bad" in refused.stderr
    assert nobody == []
    assert skipped.returncode == 0 and "course: 1 added." in skipped.stdout and "line 3" in skipped.stdout


async def test_a_code_is_shown_once_with_its_link_and_only_a_hash_is_kept(
    database: Database, course: str, owner: asyncpg.Connection
) -> None:
    made = await answer(
        database, "groups", "code", course, "--max-people", "40", "--closes", "2099-12-01T18:00",
        "--set=server.public_url=https://lab.example.org",
    )  # fmt: skip
    shown = await answer(database, "groups", "show", course)
    revoked = await answer(database, "groups", "code", course, "--revoke")

    assert len(made["code"].replace("-", "")) == 12
    assert made["link"] == f"https://lab.example.org/#join={made['code']}"
    assert [(code["max_people"], code["people"]) for code in shown["join_codes"]] == [(40, 0)]
    assert revoked == {"name": course, "revoked": 1}
    told = str(await owner.fetch("SELECT * FROM events"))
    assert made["code"] not in told and hashlib.sha256(made["code"].replace("-", "").encode()).hexdigest() not in told


async def test_a_group_is_made_shared_filled_and_removed(database: Database, owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await lablink(database, "groups", "add", "lab", CYD, "--new")
    added = await lablink(database, "groups", "add", "course", "--new", "--max-live", "2", ADA, CYD)
    await lablink(database, "groups", "share", "course", "gpu", "--max-live", "1")

    (course, lab) = await answer(database, "groups", "list")
    table = (await lablink(database, "groups", "show", "course")).stdout
    await lablink(database, "groups", "remove", "course", CYD)
    unasked = await lablink(database, "groups", "remove", "lab")
    gone = await lablink(database, "groups", "remove", "lab", "--yes")

    assert "1 added, 1 moved from another group" in added.stdout
    assert (course["people"], course["max_live"], course["pools"], lab["people"]) == (2, 2, "gpu (1)", 0)
    assert ADA in table and CYD in table
    assert [row["email"] for row in await answer(database, "groups", "export")] == [ADA]
    assert unasked.returncode == 1 and "--yes" in unasked.stderr and gone.returncode == 0


async def test_a_limit_stays_until_it_is_set_or_taken_away(database: Database, course: str) -> None:
    limits = []
    for change in (["--max-live", "3"], [], ["--max-live", "0"], ["--no-limit"]):
        await lablink(database, "groups", "add", course, *change)
        shared = await answer(database, "groups", "share", course, "default", *change)
        [group] = await answer(database, "groups", "list")
        limits.append((group["max_live"], shared["max_live"], group["pools"]))
    both = await lablink(database, "groups", "share", course, "default", "--max-live", "1", "--no-limit")

    assert limits == [(3, 3, "default (3)"), (3, 3, "default (3)"), (0, 0, "default (0)"), (None, None, "default")]
    assert both.returncode == 2 and "--no-limit" in both.stderr


async def test_people_are_moved_to_no_group_that_a_typo_makes(database: Database, course: str) -> None:
    await lablink(database, "groups", "add", course, BOB)

    mistyped = await lablink(database, "groups", "add", "cuorse", BOB)
    odd = await lablink(database, "groups", "add", "Cuorse", BOB, "--new")
    groups = [group["name"] for group in await answer(database, "groups", "list")]
    meant = await answer(database, "groups", "add", "cuorse", BOB, "--new")

    assert mistyped.returncode == 4 and "Groups: course" in mistyped.stderr and odd.returncode == 1
    assert (groups, meant["moved"]) == ([course], 1)


async def test_what_cannot_be_done_is_said_with_what_to_do(database: Database, course: str, tmp_path: Path) -> None:
    listed = tmp_path / "people.csv"
    listed.write_bytes("email\nmüller@example.org\n".encode("latin-1"))

    unknown = await lablink(database, "groups", "show", "curse")
    odd = await lablink(database, "groups", "add", course, "ada")
    with_comma = await lablink(database, "groups", "add", course, f"{ADA},", BOB)
    coded = await lablink(database, "groups", "import", course, str(listed))
    late = await lablink(database, "groups", "code", course, "--closes", "2001-01-01")

    assert unknown.returncode == 4 and "Groups: course" in unknown.stderr
    assert odd.returncode == 2 and "name@example.org" in odd.stderr
    assert with_comma.returncode == 2 and "commas" in with_comma.stderr
    assert await answer(database, "groups", "export") == []
    assert coded.returncode == 1 and "UTF-8" in coded.stderr
    assert late.returncode == 2 and "give a later --closes" in late.stderr
