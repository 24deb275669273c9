"""What a pool that is there has measured: a rehearsal may be like it."""

from dataclasses import replace

from allocator.rehearsal.plan import Plan
from allocator.upkeep.reach import connected

TERMS = ("lease_seconds", "extend_seconds", "keep_seconds", "queue_seconds")
MEASURED = f"""
    SELECT {", ".join(f"p.{each}" for each in TERMS)}, lasted(p.name) AS uses, booted_in(p.name) AS boots
    FROM pool_named($1) p
"""


async def like(plan: Plan, dsn: str, pool: str) -> Plan:
    """The plan with that pool's terms, and with how long its leases and boots took where some are known."""
    async with connected(dsn) as owner:
        row = await owner.fetchrow(MEASURED, pool)
    assert row is not None
    uses, boots = tuple(row["uses"]), tuple(row["boots"])
    terms = replace(plan, **{name: row[name] for name in TERMS})
    return replace(terms, uses=uses, boots=boots, known=bool(uses and boots))
