"""Rosters: who is in which group, by list or one by one, and what the history says of it."""

from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from tests.sql.steps import ADA, BOB, CYD

EVENTS = """
    SELECT concat_ws(' ', kind, detail ->> 'group', detail ->> 'people') FROM events
    WHERE kind IN ('group.joined', 'group.left')
"""


@pytest_asyncio.fixture(autouse=True)
async def groups(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO groups (name) VALUES ('course'), ('lab')")


async def add(owner: asyncpg.Connection, group: str, *emails: str, replace: bool = False) -> dict[str, Any]:
    row = await owner.fetchrow("SELECT * FROM add_members($1, $2, $3)", group, emails, replace)
    assert row is not None
    return {name: number for name, number in row.items() if number}


async def of(owner: asyncpg.Connection, group: str) -> list[str]:
    return [
        row["email"] for row in await owner.fetch("SELECT email FROM members WHERE group_name = $1 ORDER BY 1", group)
    ]


async def events(owner: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await owner.fetch(EVENTS)]


async def test_a_list_adds_who_is_new_moves_who_is_elsewhere_and_changes_nothing_the_second_time(
    owner: asyncpg.Connection,
) -> None:
    await add(owner, "lab", BOB)

    first = await add(owner, "course", ADA, "BOB@example.org", f" {CYD} ", CYD)
    again = await add(owner, "course", ADA.upper(), BOB, CYD)

    assert (first, again) == ({"added": 2, "moved": 1}, {"already": 3})
    assert (await of(owner, "course"), await of(owner, "lab")) == ([ADA, BOB, CYD], [])


async def test_a_list_that_replaces_takes_out_who_is_not_on_it(owner: asyncpg.Connection) -> None:
    await add(owner, "course", ADA, BOB)
    await add(owner, "lab", CYD)

    done = await add(owner, "course", "Bob@example.org", replace=True)

    assert done == {"already": 1, "removed": 1}
    assert (await of(owner, "course"), await of(owner, "lab")) == ([BOB], [CYD])


async def test_an_address_is_kept_tidy_and_found_however_it_is_written(owner: asyncpg.Connection) -> None:
    await add(owner, "course", " Ada.L@Example.ORG ")

    assert await of(owner, "course") == ["Ada.L@example.org"]
    assert await owner.fetchval("SELECT remove_members('course', ARRAY['ADA.L@example.org', 'eve@example.org'])") == 1
    assert await of(owner, "course") == []


async def test_the_history_says_how_many_and_never_who(owner: asyncpg.Connection) -> None:
    await add(owner, "lab", BOB)
    await add(owner, "course", ADA, BOB)
    await owner.execute("UPDATE members SET joined_at = joined_at")
    await owner.execute("TRUNCATE members")

    assert sorted(await events(owner)) == [
        "group.joined course 1",
        "group.joined course 1",
        "group.joined lab 1",
        "group.left course 2",
        "group.left lab 1",
    ]
    assert "@" not in str(await owner.fetch("SELECT detail FROM events"))


async def test_a_file_is_copied_in_by_psql_and_again_without_harm(owner: asyncpg.Connection, tmp_path: Path) -> None:
    listed = tmp_path / "people.csv"
    listed.write_text(f"email,group\n{ADA},course\n{BOB},course\n")
    columns = ["email", "group_name"]

    for _ in range(2):
        await owner.copy_to_table("members", source=listed, columns=columns, format="csv", header=True)

    assert await of(owner, "course") == [ADA, BOB]


@pytest.mark.parametrize(
    ("line", "sqlstate"),
    [("ada at home,course", "23514"), (f"{ADA},curse", "LL005"), (f"{BOB},course", "LL003")],
    ids=["no address", "no group", "of another group"],
)
async def test_a_bad_line_of_a_file_is_refused_with_words_and_its_number(
    owner: asyncpg.Connection, tmp_path: Path, line: str, sqlstate: str
) -> None:
    await add(owner, "lab", BOB)
    listed = tmp_path / "people.csv"
    listed.write_text(f"{CYD},course\n{line}\n")

    with pytest.raises(asyncpg.PostgresError) as told:
        await owner.copy_to_table("members", source=listed, columns=["email", "group_name"], format="csv")

    said = told.value.as_dict()
    assert (said["sqlstate"], "line 2" in said["context"]) == (sqlstate, True) and said["hint"]
    assert await of(owner, "course") == []


async def test_what_is_asked_of_a_group_that_is_not_there_is_refused_with_those_that_are(
    owner: asyncpg.Connection,
) -> None:
    for statement in ("add_members('curse', '{}')", "remove_members('curse', '{}')", "revoke_join_codes('curse')"):
        with pytest.raises(asyncpg.PostgresError) as told:
            await owner.execute(f"SELECT {statement}")
        said = told.value.as_dict()
        assert (said["sqlstate"], said["hint"]) == ("LL005", "Groups: course, lab")
