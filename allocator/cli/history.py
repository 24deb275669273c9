"""The history as `lablink events` reads it: each event once."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID

from allocator.cli import admin, output
from allocator.cli.admin import Row
from client.network import Connection

REMEMBERED_GAPS = 1000
NONE = "Nothing of the kind has happened yet."


@dataclass
class History:
    """What was asked for, and how far it was read.

    Events are numbered when they are written and seen when they are committed, so a lower number may appear after a
    higher one: the numbers skipped so far are asked for again at each look.
    """

    after: int | None
    limit: int
    hostname: str | None
    lease: str | None
    as_json: bool
    lease_id: UUID | None = None
    known: bool = False
    missing: set[int] = field(default_factory=set)

    async def show(self, connection: Connection) -> None:
        """Print the last events, or all after the id that was given."""
        rows = await self._unread(connection)
        if self.as_json:
            return output.print_json_lines(rows)
        now = await admin.clock(connection)
        output.show_rows(rows, output.EVENT_COLUMNS, now=now, empty=NONE, as_json=False)

    async def look(self, connection: Connection) -> None:
        """Print what came since the last look, a line each."""
        rows = await self._unread(connection)
        if self.as_json:
            return output.print_json_lines(rows)
        for row in rows:
            output.say(_line(row))

    async def _unread(self, connection: Connection) -> list[Row]:
        if not self.known:
            await self._identify(connection)
        if self.after is None:
            return await self._newest(connection)
        found: list[Row] = []
        while rows := await admin.events_after(connection, self.after, sorted(self.missing)):
            self._note(self.after, [row["id"] for row in rows])
            found += [row for row in rows if self._wanted(row)]
        return found

    async def _identify(self, connection: Connection) -> None:
        """Find what is asked about. Raises NotThere."""
        if self.hostname:
            await admin.check_known(connection, self.hostname)
        if self.lease:
            self.lease_id = (await admin.lease(connection, self.lease))["id"]
        self.known = True

    async def _newest(self, connection: Connection) -> list[Row]:
        last = await admin.last_event(connection)
        rows = await admin.newest_events(connection, self.limit, hostname=self.hostname, lease_id=self.lease_id)
        self.after = max([last, *(row["id"] for row in rows)])
        return rows

    def _note(self, last: int, read: Sequence[int]) -> None:
        highest = max(last, *read)
        self.missing |= set(range(max(last + 1, highest - REMEMBERED_GAPS), highest))
        self.missing = set(sorted(self.missing - set(read))[-REMEMBERED_GAPS:])
        self.after = highest

    def _wanted(self, row: Row) -> bool:
        return self.hostname in (None, row["hostname"]) and self.lease_id in (None, row["lease_id"])


def _line(event: Row) -> str:
    about = [event["hostname"], event["lease_id"] and f"lease {event['lease_id']}", f"by {event['actor']}"]
    detail = ", ".join(f"{key}={value}" for key, value in event["detail"].items())
    words = [f"{event['at'].astimezone():%H:%M:%S}", f"{event['id']:>6}", f"{event['kind']:<16}", *about, detail]
    return "  ".join(word for word in words if word)
