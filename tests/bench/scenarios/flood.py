"""Machines in hostile hands that forge notifications, while requests are timed beside them."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import asyncpg

from client.network import Connection
from client.scram import new_password, verifier
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.load import Asked, Side, come, poisson
from tests.bench.options import Options
from tests.bench.sides.trips import Trip, spans

A_SECOND = 10_000
AT_ONCE = 100
RATE = 10.0
"""Requests a second: few, so that what slows one is not the next."""

SECONDS = 2.0
"""How long each round of requests lasts at most."""

FIRST = 30_000
"""Numbers of these requests; those of every other thousand come during a flood."""

AIM = 2.0
HINTED = 100
INVITE = "SELECT invite_vm($1, 'default', $2, 600)"
ENROL = "SELECT role FROM enrol_vm($1, $2)"
FORGE = "SELECT pg_notify('vm_updates', $1 || repeat(' ', g)) FROM generate_series(1, $2::integer) AS g"
LOST = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError)


@dataclass(slots=True)
class Flood:
    """How many notifications were forged before the machines were cut off, and in how many seconds."""

    times: int
    forged: int = 0
    seconds: float = 0.0


async def load(system: Side, own: Ground, database: str, options: Options) -> tuple[list[Asked], Flood]:
    """Requests in rounds, without and with a flood in turn."""
    asked, flood = [], Flood(options.floods)
    for number in range(2 * options.floods):
        moments, first = poisson(RATE, min(SECONDS, options.seconds), number // 2), FIRST + 1000 * number
        if number % 2:
            async with _flooding(await _hostile(own, database), flood):
                asked += await come(system, moments, first)
        else:
            asked += await come(system, moments, first)
    return asked, flood


def section(trips: list[Trip], flood: Flood) -> Section:
    """What it did to those of `trips` that are its requests."""
    trips = [trip for trip in trips if trip.asked.number >= FIRST]
    made = Section(f"A machine in hostile hands forges {A_SECOND:,} notifications a second")
    for what, end in (("POST → answer", "answered"), ("POST → command started", "started")):
        calm, stormy = (
            figure(spans([t for t in trips if _in_flood(t) is which], "sent", end)) for which in (False, True)
        )
        made.rows += [Row(what, calm, None), Row("  … meanwhile", stormy, None)]
        slower = stormy.p50 / calm.p50 if calm and stormy else None
        made.values.append(Value(f"{what}: slower meanwhile", slower, None, "×", AIM))
    made.remarks.append(
        "Machines share the cores here: what all of them hear delays the commands of all, and no answer."
    )
    made.values.append(Value("forged before it was cut off", flood.forged / flood.times))
    made.values.append(Value("and how long that takes", flood.seconds / flood.times, None, "s"))
    return made


def _in_flood(trip: Trip) -> bool:
    return trip.asked.number // 1000 % 2 == 1


async def _hostile(own: Ground, database: str) -> Connection:
    """A connection with what any machine has, whose client says nothing else."""
    token, password = secrets.token_bytes(32), new_password()
    owner = await own.connect("lablink", database)
    try:
        await owner.execute(INVITE, f"hostile-{token.hex()[:8]}", hashlib.sha256(token).digest())
        role = await owner.fetchval(ENROL, hashlib.sha256(token).digest(), verifier(password))
    finally:
        await owner.close()
    return await asyncpg.connect(own.server.dsn(role, password, database))


@asynccontextmanager
async def _flooding(hostile: Connection, flood: Flood) -> AsyncIterator[None]:
    """The flood, for the time of the block or until somebody ends it."""
    task = asyncio.create_task(_forge(hostile, flood))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        hostile.terminate()


async def _forge(hostile: Connection, flood: Flood) -> None:
    """Forge hints at every machine, until cut off."""
    now = asyncio.get_running_loop().time
    hints = [{"id": n, "hostname": f"vm-{n}", "status": "in-use", "epoch": 1} for n in range(1, HINTED + 1)]
    began = due = now()
    with suppress(*LOST):
        while True:
            await hostile.execute(FORGE, json.dumps(hints), AT_ONCE)
            flood.forged += AT_ONCE
            flood.seconds += now() - began
            began = now()
            due = max(due + AT_ONCE / A_SECOND, now() - 0.1)
            await asyncio.sleep(due - now())
