"""Old months of the history: into a file that anybody can check against the seals, then out of the database.

The file has one line of JSON an event, as `event_line` writes it: the seals were made of these lines.
"""

import asyncio
import gzip
import hashlib
import json
import zlib
from bisect import bisect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import asyncpg

from allocator.operations import Tell
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.storage import publish, sha256_of
from client.network import Connection

COLUMNS = ["id", "at", "actor", "db_role", "client_addr", "kind", "vm_id", "hostname", "lease_id", "detail"]
TRIES = 10
SECONDS_BETWEEN_TRIES = 1.0

MONTHS = "SELECT month FROM event_months() WHERE month < $1 ORDER BY month"
THIS_MONTH = "SELECT event_month(clock())"
LINES = """
    SELECT event_line(e) FROM events e
    WHERE at >= $1::date::timestamp AT TIME ZONE 'UTC' AND at < ($1::date + interval '1 month') AT TIME ZONE 'UTC'
    ORDER BY id
"""
SEALS = """
    SELECT s.seal, s.events, s.rows_sha256, s.prints, lower(these) AS first, upper(these) AS beyond
    FROM event_seals s, unnest(s.ids) AS these
    WHERE s.month = $1 AND CASE WHEN $2::bigint IS NULL
        THEN NOT EXISTS (SELECT FROM event_archives a WHERE a.ids @> s.ids)
        ELSE EXISTS (SELECT FROM event_archives a WHERE a.archive = $2 AND a.ids @> s.ids) END
    ORDER BY seal, first
"""
ARCHIVE = "SELECT archive, month, sha256 FROM event_archives WHERE file = $1 ORDER BY sha256 = $2 DESC LIMIT 1"
DROP_MONTH = "SELECT archive_month($1, $2, $3, $4)"

NO_SUCH_ARCHIVE = "No month was archived in a file called {}. See which there are: lablink db archives list"
IN_THE_WAY = "An open transaction has read or written the history, so {} stays for now. See whose: lablink db locks"


@dataclass(frozen=True, slots=True)
class Archived:
    """A month that is in a file now, and not in the database any more."""

    month: str
    events: int
    file: str
    sha256: str


async def archive(connection: Connection, before: date, directory: Path, tell: Tell) -> list[Archived]:
    """Move every month before `before` that is over into a file in `directory`; returns what was moved, oldest first.

    Raises UpkeepFailed when a month's events are not those that were sealed, or somebody reads them: it then stays.
    """
    if before > (this := await connection.fetchval(THIS_MONTH)):
        raise UpkeepFailed(f"Only what is over can be archived: give --before {this:%Y-%m} at the latest.")
    months = [row["month"] for row in await connection.fetch(MONTHS, before)]
    archived = []
    for number, month in enumerate(months):
        await tell(number, len(months), f"{month:%Y-%m}")
        with _written_to(directory):
            archived.append(await _archive(connection, month, directory))
    return archived


async def broken_archive(connection: Connection, file: Path) -> list[str]:
    """What in an archive's file is not what was sealed, in sentences; none when all is well. Raises UpkeepFailed."""
    digest = sha256_of(file)
    known = await connection.fetchrow(ARCHIVE, file.name, digest)
    if known is None:
        raise UpkeepFailed(NO_SUCH_ARCHIVE.format(file.name))
    broken = [] if known["sha256"] == digest else [f"{file.name} is not the file that was archived"]
    return broken + await _broken_lines(connection, file, known["month"], known["archive"])


async def _archive(connection: Connection, month: date, directory: Path) -> Archived:
    directory.mkdir(parents=True, exist_ok=True)
    file = _free_name(directory, month)
    partial = file.with_suffix(".partial")
    try:
        events = await _write(connection, month, partial)
        if broken := await _broken_lines(connection, partial, month, None):
            raise UpkeepFailed(f"{month:%Y-%m} stays: {broken[0]}. All of it: lablink verify")
        digest = sha256_of(partial)
        publish(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    try:
        await _drop_month(connection, month, file.name, digest, events)
    except (asyncpg.PostgresError, UpkeepFailed):
        file.unlink()  # the database has said no; whatever else went wrong, it may have the month no more
        raise
    return Archived(f"{month:%Y-%m}", events, str(file), digest.hex())


@contextmanager
def _written_to(directory: Path) -> Iterator[None]:
    """Says that the files cannot be written, which is not the database's fault."""
    try:
        yield
    except ConnectionError:
        raise
    except OSError as error:
        raise UpkeepFailed(f"{directory} cannot be written to: {error.strerror or error}.") from error


async def _write(connection: Connection, month: date, file: Path) -> int:
    """Write the month's file; returns how many events there are."""
    events = 0
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        file.touch(mode=0o600)
        with file.open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as lines:
            lines.write(json.dumps({"history": f"{month:%Y-%m}", "columns": COLUMNS}).encode() + b"\n")
            async for row in connection.cursor(LINES, month, prefetch=1000):
                lines.write(row[0].encode() + b"\n")
                events += 1
    return events


async def _drop_month(connection: Connection, month: date, file: str, digest: bytes, events: int) -> None:
    for _ in range(TRIES):
        try:
            await connection.execute(DROP_MONTH, month, file, digest, events)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(SECONDS_BETWEEN_TRIES)
        else:
            return
    raise UpkeepFailed(IN_THE_WAY.format(f"{month:%Y-%m}"))


@dataclass(slots=True)
class _Seal:
    """What a seal says of its events, and what of them was read so far."""

    events: int
    rows_sha256: bytes
    prints: bytes
    given: int = 0
    read: int = 0
    hashed: "hashlib._Hash" = field(default_factory=hashlib.sha256)


async def _broken_lines(connection: Connection, file: Path, month: date, archive: int | None) -> list[str]:
    """Compares a file's lines with the seals of `archive`, or with those of the month that no archive has."""
    seals: dict[int, _Seal] = {}
    ranges: list[tuple[int, int, int, int]] = []  # first id, the one beyond the last, seal, place of the first in it
    for row in await connection.fetch(SEALS, month, archive):
        seal = seals.setdefault(row["seal"], _Seal(row["events"], row["rows_sha256"], row["prints"]))
        ranges.append((row["first"], row["beyond"], row["seal"], seal.given))
        seal.given += row["beyond"] - row["first"]
    ranges.sort()
    try:
        broken = list(_odd_lines(file, seals, ranges))
    except (OSError, EOFError, ValueError, zlib.error) as error:
        return [f"{file.name} cannot be read: {error}"]
    for number, seal in seals.items():
        if seal.read != seal.events:
            broken.append(f"{seal.events - seal.read} of {seal.events} events of seal {number} are missing")
        elif seal.hashed.digest() != seal.rows_sha256 and not broken:
            broken.append(f"the events of seal {number} are not those that were sealed")
    return broken


def _odd_lines(file: Path, seals: dict[int, _Seal], ranges: list[tuple[int, int, int, int]]) -> Iterator[str]:
    """Lines that no seal has, or that it has otherwise; hashes all others into their seals."""
    with gzip.open(file, "rb") as lines:
        next(lines)
        for line in lines:
            event = int(json.loads(line)[0])
            at = bisect(ranges, event, key=lambda these: these[0]) - 1
            if at < 0 or event >= ranges[at][1]:
                yield f"event {event} is in no seal"
                continue
            first, _, number, place = ranges[at]
            seal, digest = seals[number], hashlib.sha256(line.rstrip(b"\n")).digest()
            seal.hashed.update(digest)
            seal.read += 1
            start = 8 * (place + event - first)
            if seal.prints[start : start + 8] != digest[:8]:
                yield f"event {event} was changed after it was sealed (seal {number})"


def _free_name(directory: Path, month: date) -> Path:
    """A name that no file has: late events of a month that was archived are archived in a second one."""
    names = (f"events-{month:%Y-%m}{ending}.jsonl.gz" for ending in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(directory / name for name in names if not (directory / name).exists())
