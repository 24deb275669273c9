"""Whether the history is what it was when it was sealed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Self

import asyncpg

from allocator.operations import Tell
from client.network import Connection

EVENTS_AT_ONCE = 50_000
MOST = 100
"""How many sentences are enough to know that the history is broken."""

ALL_OF_IT_SECONDS = 3600.0
"""How long a question that reads the whole history may take."""

HEAD_AGAIN = "SELECT encode(sha256, 'hex') FROM event_seals WHERE seal = $1"
SEALS = "SELECT seal, events FROM event_seals WHERE $1::timestamptz IS NULL OR sealed_at >= $1 ORDER BY seal"
BROKEN_SEALS = "SELECT what FROM broken_chain($1, $2) UNION ALL SELECT what FROM broken_events($1, $2) LIMIT $3"
BROKEN_BESIDES = """
    SELECT what FROM coalesce($1, '-infinity'::timestamptz) AS since, unsealed_events(since)
    UNION ALL SELECT what FROM coalesce($1, '-infinity'::timestamptz) AS since, broken_history(since) LIMIT $2
"""


@dataclass(frozen=True, slots=True)
class Head:
    """A seal that somebody kept: from the service's log, or beside a backup."""

    seal: int
    sha256: str

    @classmethod
    def of(cls, text: str) -> Self:
        """From `SEAL:HASH`. Raises ValueError when it is not that."""
        seal, _, digest = text.partition(":")
        if not seal.isdecimal() or len(bytes.fromhex(digest)) != 32:
            raise ValueError(text)
        return cls(int(seal), digest.lower())


async def broken_history(
    connection: Connection, *, since: datetime | None = None, head: Head | None = None, tell: Tell
) -> list[str]:
    """What is wrong with the history, in sentences, the first hundred of them; none when all is well.

    `since` leaves out what happened or was sealed earlier; `head` must be part of the chain.
    """
    broken = await broken_chain(connection, since=since, head=head, tell=tell)
    if len(broken) < MOST:
        broken += await _sentences(connection, BROKEN_BESIDES, since, MOST)
    return broken


async def broken_chain(
    connection: Connection, *, since: datetime | None = None, head: Head | None = None, tell: Tell
) -> list[str]:
    """The same of what was sealed; what is not sealed yet is left out, as a backup's is for ever."""
    broken = await _broken_head(connection, head) if head else []
    seals = await connection.fetch(SEALS, since)
    done, total = 0, sum(seal["events"] for seal in seals)
    for first, last, events in _portions(seals):
        await tell(done, total, "events")
        broken += await _sentences(connection, BROKEN_SEALS, first, last, MOST)
        done += events
        if len(broken) >= MOST:
            return [*broken[:MOST], "There is more. Mend or explain this first."]
    return broken


async def _broken_head(connection: Connection, head: Head) -> list[str]:
    found = await connection.fetchval(HEAD_AGAIN, head.seal)
    if found == head.sha256:
        return []
    if found is None:
        return [f"seal {head.seal}, which was kept, is not there: it was removed, or the database restored to earlier"]
    return [f"seal {head.seal} is not the one that was kept: the history up to it was rewritten"]


async def _sentences(connection: Connection, query: str, *arguments: object) -> list[str]:
    return [row["what"] for row in await connection.fetch(query, *arguments, timeout=ALL_OF_IT_SECONDS)]


def _portions(seals: Sequence[asyncpg.Record]) -> Iterator[tuple[int, int, int]]:
    """First seal, last seal and number of events of portions that a statement reads within seconds."""
    first, events = None, 0
    for seal in seals:
        first = first or seal["seal"]
        events += seal["events"]
        if events >= EVENTS_AT_ONCE or seal is seals[-1]:
            yield first, seal["seal"], events
            first, events = None, 0
