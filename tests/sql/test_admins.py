"""Admins of the HTTP API: whose token is good, what the history says, and what the service may know."""

from hashlib import sha256

import asyncpg
import pytest

EVENTS = "SELECT actor || ' ' || kind || ' ' || (detail ->> 'admin') FROM events ORDER BY id"
TOKEN = sha256(b"token").digest()


async def events(owner: asyncpg.Connection) -> list[str]:
    return [row[0] for row in await owner.fetch(EVENTS)]


async def admin_of(service: asyncpg.Connection, token: bytes = TOKEN) -> object:
    return await service.fetchval("SELECT admin_of($1)", token)


async def test_a_token_is_good_until_it_expires_or_is_removed(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("SELECT add_admin('ada', $1, 1)", TOKEN)
    assert await admin_of(service) == "ada"
    assert await admin_of(service, sha256(b"another").digest()) is None
    assert await owner.fetchval("SELECT last_used_at <= clock() FROM admins")

    await owner.execute("UPDATE admins SET expires_at = clock()")
    assert await admin_of(service) is None
    await owner.execute("UPDATE admins SET expires_at = clock() + interval '1 hour'")
    assert await admin_of(service) == "ada"
    await owner.execute("SELECT remove_admin('ada')")
    assert await admin_of(service) is None


@pytest.mark.parametrize("away", ["SELECT remove_admin('ada')", "DELETE FROM admins", "TRUNCATE admins"])
async def test_the_history_says_who_became_an_admin_and_who_is_none_any_more(
    owner: asyncpg.Connection, service: asyncpg.Connection, away: str
) -> None:
    await owner.execute("SELECT add_admin('ada', $1, 1)", TOKEN)
    await admin_of(service)
    await owner.execute(away)

    assert await events(owner) == ["lablink admin.added ada", "lablink admin.removed ada"]


async def test_there_is_one_admin_of_a_name_and_none_is_removed_twice(owner: asyncpg.Connection) -> None:
    await owner.execute("SELECT add_admin('ada', $1, 1)", TOKEN)

    with pytest.raises(asyncpg.PostgresError, match="already") as twice:
        await owner.execute("SELECT add_admin('ada', $1, 1)", sha256(b"another").digest())
    with pytest.raises(asyncpg.PostgresError, match="no admin eve") as unknown:
        await owner.execute("SELECT remove_admin('eve')")

    assert (twice.value.sqlstate, unknown.value.sqlstate) == ("LL003", "LL002")
    assert getattr(twice.value, "hint", None) and getattr(unknown.value, "hint", None)


@pytest.mark.parametrize(
    "statement",
    ["SELECT FROM admins", "SELECT remove_admin('ada')", "SELECT add_admin('eve', sha256('x'), 1)", "TRUNCATE admins"],
)
async def test_the_service_learns_whose_token_it_is_and_nothing_else(
    service: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute(statement)
