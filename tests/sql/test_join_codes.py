"""Join codes: whom they let in, when, and that all who are not let in hear the same."""

import asyncio

import asyncpg
import pytest
import pytest_asyncio

from tests.sql.steps import ADA, BOB, CYD, refused, sha256
from tests.support.database import Database

CODE = sha256("K7MP3XQ29RTW")


@pytest_asyncio.fixture(autouse=True)
async def groups(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO groups (name) VALUES ('course'), ('lab')")


async def open_door(owner: asyncpg.Connection, places: int | None = None, opens: str = "-1 hour") -> None:
    await owner.execute(
        "SELECT add_join_code('course', $1, $2, clock() + $3::text::interval, clock() + interval '1 day')",
        CODE,
        places,
        opens,
    )


async def join(service: asyncpg.Connection, email: str, code: bytes = CODE) -> None:
    await service.execute("SELECT join_group($1, $2)", email, code)


async def members(owner: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await owner.fetch("SELECT email FROM members WHERE group_name = 'course' ORDER BY 1")]


async def test_whoever_has_the_code_is_let_in_once(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await open_door(owner, places=2)

    await join(service, ADA)
    await join(service, ADA.upper())
    await join(service, BOB)

    assert await members(owner) == [ADA, BOB]


@pytest.mark.parametrize("reason", ["unknown", "not yet", "over", "full", "revoked", "of another group"])
async def test_whoever_is_not_let_in_hears_the_same_whatever_the_reason(
    owner: asyncpg.Connection, service: asyncpg.Connection, reason: str
) -> None:
    await open_door(owner, places=1, opens="1 hour" if reason == "not yet" else "-1 hour")
    if reason == "over":
        await owner.execute("UPDATE join_codes SET closes_at = clock()")
    elif reason == "full":
        await join(service, BOB)
    elif reason == "revoked":
        await owner.execute("SELECT revoke_join_codes('course')")
    elif reason == "of another group":
        await owner.execute("INSERT INTO members (email, group_name) VALUES ($1, 'lab')", ADA.upper())

    with pytest.raises(asyncpg.PostgresError, match="lets nobody in") as told:
        await join(service, ADA, sha256("ANOTHER") if reason == "unknown" else CODE)

    assert (told.value.sqlstate, ADA in await members(owner)) == ("LL015", False)


async def test_a_member_needs_no_place_and_no_open_door(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await open_door(owner, places=1)
    await join(service, ADA)
    await owner.execute("UPDATE join_codes SET closes_at = clock()")

    await join(service, ADA)

    assert await members(owner) == [ADA]


async def test_a_place_is_free_again_when_its_member_has_left(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await open_door(owner, places=1)
    await join(service, ADA)

    await owner.execute("SELECT remove_members('course', ARRAY[$1])", ADA)
    await join(service, CYD)

    assert await members(owner) == [CYD]


async def test_the_last_place_is_taken_once_however_many_want_it(owner: asyncpg.Connection, database: Database) -> None:
    people = [await database.connect("lablink_app") for _ in range(4)]
    for round_ in range(20):
        code = sha256(f"code {round_}")
        await owner.execute("DELETE FROM members")
        await owner.execute("SELECT add_join_code('course', $1, 1, NULL, clock() + interval '1 day')", code)

        done = await asyncio.gather(
            *(join(each, f"p{number}@example.org", code) for number, each in enumerate(people)), return_exceptions=True
        )

        assert sorted(getattr(each, "sqlstate", "") for each in done) == ["", "LL015", "LL015", "LL015"]
        assert len(await members(owner)) == 1


async def test_one_person_who_comes_twice_at_once_is_one_member(owner: asyncpg.Connection, database: Database) -> None:
    await open_door(owner)
    people = [await database.connect("lablink_app") for _ in range(2)]
    for _ in range(20):
        await owner.execute("DELETE FROM members")

        await asyncio.gather(*(join(each, ADA) for each in people))

        assert await members(owner) == [ADA]


async def test_the_history_says_who_can_come_and_until_when_and_never_the_code(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await open_door(owner, places=3)
    await join(service, ADA)
    await owner.execute("TRUNCATE join_codes")

    told = await owner.fetch("SELECT actor || ' ' || kind AS what, detail::text FROM events ORDER BY id")
    assert [row["what"] for row in told if "added" not in row["what"]] == [
        "lablink code.opened",
        "web group.joined",
        "lablink code.revoked",
    ]
    assert CODE.hex() not in str(told) and "@" not in str(told)


@pytest.mark.parametrize(
    "statement", ["SELECT FROM join_codes", "SELECT FROM members", "SELECT revoke_join_codes('course')"]
)
async def test_the_service_can_let_in_who_has_a_code_and_learn_nothing(
    service: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)


async def test_a_code_closes_after_it_opens(owner: asyncpg.Connection) -> None:
    with refused("23514"):
        await owner.execute("SELECT add_join_code('course', $1, 1, clock() + interval '1 day', clock())", CODE)
