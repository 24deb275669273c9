"""What the commands about groups ask of the database: one function a question, each one statement."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from allocator.join_codes import code_sha256, join_link, new_code
from client.network import Connection

Row = dict[str, Any]

GROUP = """
    SELECT g.name, g.max_live, (SELECT count(*) FROM members m WHERE m.group_name = g.name) AS people,
           count(l.id) FILTER (WHERE l.vm_id IS NOT NULL) AS machines,
           count(l.id) FILTER (WHERE l.vm_id IS NULL) AS waiting,
           (SELECT string_agg(s.pool || coalesce(' (' || s.max_live || ')', ''), ', ' ORDER BY s.pool)
            FROM shares s WHERE s.group_name = g.name) AS pools,
           (SELECT count(*) FROM join_codes c WHERE c.group_name = g.name AND c.closes_at > clock()) AS codes
    FROM groups g LEFT JOIN leases l ON l.group_name = g.name AND l.live
    WHERE $1::text IS NULL OR g.name = $1 GROUP BY g.name ORDER BY g.name
"""

PEOPLE = """
    SELECT m.email, m.group_name, m.joined_at, m.join_code, l.status, l.hostname
    FROM members m LEFT JOIN LATERAL (
        SELECT * FROM leases l WHERE l.live AND position('@' IN l.email) > 0 AND lower(l.email) = lower(m.email)
        ORDER BY l.place LIMIT 1) AS l ON true
    WHERE $1::text IS NULL OR m.group_name = $1 ORDER BY m.group_name, lower(m.email)
"""

CODES = """
    SELECT c.id, c.opens_at, c.closes_at, c.max_people,
           (SELECT count(*) FROM members m WHERE m.join_code = c.id) AS people
    FROM join_codes c WHERE c.group_name = $1 ORDER BY c.id
"""

SHARE = """
    INSERT INTO shares AS s (pool, group_name, max_live) VALUES ($1, $2, $3)
    ON CONFLICT (pool, group_name) DO UPDATE SET max_live = CASE WHEN $4 THEN excluded.max_live ELSE s.max_live END
    RETURNING max_live
"""


@dataclass(frozen=True, slots=True)
class Limit:
    """How many machines a group may have at a time; None: as many as there are."""

    max_live: int | None


async def groups(connection: Connection, name: str | None = None) -> list[Row]:
    """Each group, or the one of that name: how many people, machines and codes it has, and where it has a share."""
    return await _rows(connection, GROUP, name)


async def group(connection: Connection, name: str) -> Row:
    """That group; refused as the database does when there is none."""
    await connection.execute("SELECT group_named($1)", name)
    return (await groups(connection, name))[0]


async def people(connection: Connection, group: str | None) -> list[Row]:
    """The members of a group, or of all, and what each has or waits for."""
    return await _rows(connection, PEOPLE, group)


async def codes(connection: Connection, group: str) -> list[Row]:
    """The join codes of a group: never what they are, only how far they are used."""
    return await _rows(connection, CODES, group)


async def add(connection: Connection, name: str, emails: Sequence[str], limit: Limit | None, *, make: bool) -> Row:
    """Make these people members, of a group that is there or is made, all or nothing; as `add_members`."""
    async with connection.transaction():
        if make:
            await connection.execute("INSERT INTO groups (name) VALUES ($1) ON CONFLICT DO NOTHING", name)
        if limit:
            await connection.execute("UPDATE groups SET max_live = $2 WHERE name = $1", name, limit.max_live)
        return await add_members(connection, name, emails)


async def remove_group(connection: Connection, name: str) -> None:
    """Remove a group, with its shares and codes; its members are of none then."""
    await connection.execute("SELECT group_named($1)", name)
    await connection.execute("DELETE FROM groups WHERE name = $1", name)


async def share(connection: Connection, group: str, pool: str, limit: Limit | None) -> int | None:
    """Let a group into a pool; without a limit it keeps the one that it has. Returns how many machines it may have."""
    await connection.execute("SELECT group_named($1), pool_named($2)", group, pool)
    return cast(int | None, await connection.fetchval(SHARE, pool, group, limit and limit.max_live, limit is not None))


async def unshare(connection: Connection, group: str, pool: str) -> None:
    """Take a group's share in a pool away."""
    await connection.execute("SELECT group_named($1), pool_named($2)", group, pool)
    await connection.execute("DELETE FROM shares WHERE group_name = $1 AND pool = $2", group, pool)


async def add_members(connection: Connection, group: str, emails: Sequence[str], *, replace: bool = False) -> Row:
    """Make these people members: how many were `added`, `moved` from another group, there `already`, and `removed`."""
    return (await _rows(connection, "SELECT * FROM add_members($1, $2, $3)", group, emails, replace))[0]


async def remove_members(connection: Connection, group: str, emails: Sequence[str]) -> int:
    """Take these people out. Returns how many were in it."""
    return int(await connection.fetchval("SELECT remove_members($1, $2)", group, emails))


async def add_join_code(
    connection: Connection, group: str, url: str, max_people: int | None, opens: datetime, closes: datetime
) -> Row:
    """Make a new code good: itself, which nobody is told again, the link to the service at `url`, and its terms."""
    code = new_code()
    number = await connection.fetchval(
        "SELECT add_join_code($1, $2, $3, $4, $5)", group, code_sha256(code), max_people, opens, closes
    )
    terms = {"max_people": max_people, "opens_at": opens, "closes_at": closes}
    return {"name": group, "id": number, "code": code, "link": join_link(url, code), **terms}


async def revoke_join_codes(connection: Connection, group: str) -> int:
    """Make the group's codes worth nothing. Returns how many there were."""
    return int(await connection.fetchval("SELECT revoke_join_codes($1)", group))


async def _rows(connection: Connection, query: str, *arguments: object) -> list[Row]:
    return [dict(row) for row in await connection.fetch(query, *arguments)]
