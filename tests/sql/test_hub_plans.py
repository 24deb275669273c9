"""What the hub asks reads the rows of those who speak, however many others there are and whatever is known of them."""

from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.sql.speaking import OTHER, TOKEN, claims, cleanings, hellos, known, report, reports
from tests.sql.steps import ADA, BOB, ask, sha256
from tests.support.database import Database

MANY = 2_000
ROWS = 100
"""So many of a table may two answers take; most take one or two each."""

OTHERS = f"""
    INSERT INTO vm_roles (role, hub_sha256)
    SELECT 'lablink_vm_' || lpad(to_hex(g), 16, '0'), sha256(g::text::bytea) FROM generate_series(1, {MANY}) g;
    INSERT INTO vms (hostname, status, role)
    SELECT 'h' || g, 'in-use', 'lablink_vm_' || lpad(to_hex(g), 16, '0') FROM generate_series(1, {MANY}) g;
    INSERT INTO vm_heartbeats SELECT id, clock() FROM vms ON CONFLICT DO NOTHING"""
READ = """SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) AS rows FROM pg_stat_xact_user_tables
    WHERE schemaname = 'public'"""


async def rows_read(
    service: asyncpg.Connection, asking: Callable[[], Awaitable[dict[int, dict[str, Any]]]]
) -> Counter[str]:
    """How many rows of each table it took to answer both who ask."""
    async with service.transaction():
        before = Counter({row["relname"]: row["rows"] for row in await service.fetch(READ)})
        assert len(await asking()) == 2
        return Counter({row["relname"]: row["rows"] for row in await service.fetch(READ)}) - before


@pytest.mark.parametrize("known_of_them", ["nothing", "that there were none", "all"])
async def test_a_whole_lease_reads_the_rows_of_its_machine_alone(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, known_of_them: str
) -> None:
    if known_of_them == "that there were none":  # and all is planned for so few
        await owner.execute("ANALYZE vms, vm_roles, vm_heartbeats, leases, events")
        nobody = sha256("nobody")
        await hellos(service, (nobody, 0, None))
        await claims(service, (nobody, 0))
        await reports(service, (nobody, UUID(int=0), report("started")))
        await cleanings(service, (nobody, 0))
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    await known(database)
    await known(database, "vm-2", OTHER)
    first, second = [(await ask(service, email, argv=["echo"]))["lease_id"] for email in (ADA, BOB)]
    if await owner.fetchval("SELECT hostname FROM leases WHERE id = $1", first) == "vm-2":
        first, second = second, first
    await owner.execute(OTHERS)
    if known_of_them == "all":
        await owner.execute("ANALYZE vms, vm_roles, vm_heartbeats, leases, events")

    read = {
        "hello": await rows_read(service, lambda: hellos(service, (TOKEN, 1, first), (OTHER, 1, second))),
        "claim": await rows_read(service, lambda: claims(service, (TOKEN, 1), (OTHER, 1))),
        "report": await rows_read(
            service, lambda: reports(service, (TOKEN, first, report("started")), (OTHER, second, report("exited", 0)))
        ),
    }
    for lease in (first, second):
        await service.execute("SELECT end_lease($1)", lease)
    read["cleaned"] = await rows_read(service, lambda: cleanings(service, (TOKEN, 2), (OTHER, 2)))

    too_many = {verb: {name: rows for name, rows in tables.items() if rows > ROWS} for verb, tables in read.items()}
    assert too_many == {verb: {} for verb in read}
    assert all(sum(tables.values()) > 0 for tables in read.values())
