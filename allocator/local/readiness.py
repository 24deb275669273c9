"""When `lablink up` is ready: the allocator says so, and every machine has reported since the start."""

import asyncio
import time
from collections.abc import Sequence

import asyncpg

from allocator.local import UpFailed

LIMIT_SECONDS = 60.0
LOOK_EVERY = 0.03

SEEN = """
    SELECT v.status, count(*) AS number FROM vms v JOIN vm_heartbeats h ON h.vm_id = v.id
    WHERE v.hostname = ANY ($1) AND h.seen_at > pg_postmaster_start_time() AND v.status NOT IN ('booting', 'cleaning')
    GROUP BY v.status ORDER BY number DESC
"""

NOTE_BOOTS = """
    INSERT INTO boots (vm_id, boot_id, pool, phases, seconds)
    SELECT v.id, gen_random_uuid(), v.pool, jsonb_build_array(jsonb_build_array('start', took.seconds)), took.seconds
    FROM vms v JOIN join_tokens j ON j.role = v.role,
         LATERAL (SELECT round(extract(epoch FROM clock() - j.created_at), 1) AS seconds) AS took
    WHERE v.hostname = ANY ($1) AND v.status NOT IN ('booting', 'failed', 'retired')
      AND j.created_at > pg_postmaster_start_time() AND NOT EXISTS (SELECT FROM boots b WHERE b.vm_id = v.id)
"""


async def page_ready(port: int) -> None:
    """Return when `GET /readyz` answers 200; raises UpFailed when it does not in time."""
    give_up = time.monotonic() + LIMIT_SECONDS
    while await _status(port, "/readyz") != 200:
        if time.monotonic() > give_up:
            raise UpFailed(f"The allocator is not ready after {LIMIT_SECONDS:.0f} s: see logs/allocator.log.")
        await asyncio.sleep(LOOK_EVERY)


async def all_seen(connection: asyncpg.Connection, hostnames: Sequence[str]) -> str:
    """Return when each machine has said hello to this PostgreSQL and is not being prepared; how many are what.

    Some that do not come up in time are told of and waited for no longer; raises UpFailed when none does.
    """
    give_up = time.monotonic() + LIMIT_SECONDS
    while True:
        rows = await connection.fetch(SEEN, hostnames)
        missing = len(hostnames) - sum(row["number"] for row in rows)
        told = ", ".join(f"{row['number']} {row['status']}" for row in rows) or "none"
        if not missing:
            return told
        if time.monotonic() > give_up:
            if rows:
                return f"{told}; {missing} did not come up in {LIMIT_SECONDS:.0f} s: see logs/vm-….log"
            raise UpFailed(f"No machine came up in {LIMIT_SECONDS:.0f} s: see logs/vm-….log.")
        await asyncio.sleep(LOOK_EVERY)


async def note_boots(connection: asyncpg.Connection, hostnames: Sequence[str]) -> None:
    """Write down how long it took until all of these were there, of each that came for the first time."""
    await connection.execute(NOTE_BOOTS, hostnames)


async def _status(port: int, path: str) -> int | None:
    """The status that a GET on this machine is answered with; None for no answer."""
    try:
        async with asyncio.timeout(5):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.readline()
            writer.close()
            return int(answer.split()[1])
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
