"""Times what people wait for at the page: from sending the form until they are led to their lease, over HTTP."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from allocator.bootstrap import DATABASE
from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.load import poisson
from tests.bench.options import PROGRAM, Options, Progress
from tests.bench.sides import naive
from tests.bench.sides.serving import serving
from tests.bench.sides.visitors import Visit
from tests.bench.workers import worker

AT_ONCE, A_SECOND, A_MINUTE = 500, 100, 320
STREAM_SECONDS = 10.0
WARM_UP = 20
SPARE = 200
SEED = 1
STREAM_AIM, AT_ONCE_AIM = (10.0, 50.0), (inf, 1000.0)
FORM = ("application/x-www-form-urlencoded", f"email=person-NUMBER%40bench.test&crd_command={PROGRAM}")
JSON = ("application/json", f'{{"email": "person-NUMBER@bench.test", "crd_command": "{PROGRAM}"}}')
LENT = "SELECT count(vm_id) AS leases, count(DISTINCT vm_id) AS vms FROM leases WHERE live"
NAIVE_LENT = "SELECT count(*) FROM vms WHERE status = 'in-use'"
SETTING = f"pool.programs=[{PROGRAM}]"
PHASE_SECONDS = 120.0

Met = list[list[Visit]]


@dataclass(slots=True)
class Side:
    """What people met with in each phase, and how many machines were given to more than one."""

    met: Met
    twice: int


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about people at the page; the same people come to both sides, one side after the other."""
    phases = _phases(options)
    free = sum(map(len, phases)) + SPARE
    await own.clone(DATABASE)
    await own.fill(DATABASE, free)
    async with serving(own, SETTING) as service:
        met = await _come(own, service.port, FORM, phases, progress)
        ours = Side(met, await _given_twice(own))
    async with naive.service(own, "bench_naive_burst", free) as port:
        met = await _come(own, port, JSON, phases, progress)
        beside = Side(met, await _naive_given_twice(own, met))
    return [_section(options, ours, beside)]


def _phases(options: Options) -> list[list[float]]:
    """The moments of each phase: a warm-up, a stream, some at leisure, and everybody at once."""
    dice = random.Random(SEED)
    return [
        poisson(A_SECOND, WARM_UP / A_SECOND, SEED),
        poisson(A_SECOND, min(STREAM_SECONDS, options.seconds), SEED + 1),
        sorted(dice.uniform(0, options.leisure_seconds) for _ in range(_at_leisure(options))),
        [0.0] * AT_ONCE,
    ]


def _at_leisure(options: Options) -> int:
    return round(A_MINUTE * options.leisure_seconds / 60)


async def _come(
    own: Ground, port: int, form: tuple[str, str], phases: Sequence[list[float]], progress: Progress
) -> Met:
    """Everybody, from a process of their own."""
    address = {"port": port, "content_type": form[0], "body": form[1]}
    met = []
    async with worker(
        "tests.bench.sides.visitors", {"address": address, "phases": phases}, own.directory / "people.log"
    ) as people:
        for _ in phases:
            met.append(await people.word(PHASE_SECONDS))
            progress(0.5 / len(phases))
    return met


async def _given_twice(own: Ground) -> int:
    connection = await own.connect("lablink", DATABASE)
    try:
        row = await connection.fetchrow(LENT)
        assert row is not None
        return int(row["leases"] - row["vms"])
    finally:
        await connection.close()


async def _naive_given_twice(own: Ground, met: Met) -> int:
    """A machine that is in use is so once, however many were told that it is theirs."""
    connection = await own.connect("lablink", "bench_naive_burst")
    try:
        return sum(len(_served(visits)) for visits in met) - int(await connection.fetchval(NAIVE_LENT))
    finally:
        await connection.close()


def _served(visits: Sequence[Visit]) -> list[Visit]:
    return [visit for visit in visits if visit[0] in (200, 303)]


def _section(options: Options, ours: Side, beside: Side) -> Section:
    section = Section("People at the page, POST → redirect")
    names = (
        (f"{A_SECOND} a second", STREAM_AIM),
        (f"{_at_leisure(options)} in {options.leisure_seconds:g} s", None),
        (f"{AT_ONCE} at the same moment", AT_ONCE_AIM),
    )
    for (what, aim), mine, theirs in zip(names, ours.met[1:], beside.met[1:], strict=True):
        times = [figure(visit[1] for visit in side) for side in (mine, theirs)]
        section.rows.append(Row(what, times[0], times[1], aim))
    wrong = [sum(len(visits) - len(_served(visits)) for visits in side.met) for side in (ours, beside)]
    section.values.append(Value("requests", sum(map(len, ours.met)), sum(map(len, beside.met))))
    section.values.append(Value("not led to a lease", wrong[0], wrong[1], aim=0))
    section.values.append(Value("machines given twice", ours.twice, beside.twice, aim=0))
    late = figure(visit[2] for visits in ours.met[1:3] for visit in visits)
    section.remarks.append(
        f"People came at most {late.p99 if late else 0:g} ms late (p99); each over a connection of their own."
    )
    return section
