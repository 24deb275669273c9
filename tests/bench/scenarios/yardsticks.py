"""Public yardsticks: two job queues on PostgreSQL, on the same server in the same run."""

from typing import Any

from tests.bench.figures import Row, Section, Value, figure
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.workers import ROOT, worker

PYTHON = ROOT / "build" / "yardsticks" / "bin" / "python"
MISSING = "They are not installed here: `make bench` brings them."
QUEUES = ("procrastinate", "pgqueuer")
WAITING = 200
GAP_SECONDS = 0.01
LIMIT_SECONDS = 95.0
ALONE = 100
TOGETHER = 500


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about them, side by side."""
    section = Section("Yardsticks: other people's job queues", ours=QUEUES[0], beside=QUEUES[1])
    if not PYTHON.exists():
        section.remarks.append(MISSING)
        return [section]
    one, other = [await _measured(own, options, queue, progress) for queue in QUEUES]
    section.rows.append(Row("put in → handler called", figure(one["alone"]), figure(other["alone"])))
    for name, what in (
        ("waiting", f"jobs, {WAITING} who wait"),
        ("together", f"jobs, {TOGETHER:,} put in at once"),
    ):
        section.values.append(Value(what, one[name], other[name], "/s", more=True))
    section.remarks += [
        "Both as documented, over 10 connections; who puts in and who handles share a process. What took "
        "procrastinate 1 s was found by its poll, which by default comes every 5 s.",
        "What is not comparable: they hand any job to any worker that is free; LabLink finds a machine for a person, "
        "keeps the rules of both, writes history, and reaches that one machine. Nearest to it are claim and delivery.",
    ]
    return [section]


async def _measured(own: Ground, options: Options, queue: str, progress: Progress) -> Any:
    database = f"bench_{queue}"
    await own.make(database)
    task = {
        "queue": queue,
        "dsn": own.dsn("lablink", database),
        "alone": min(ALONE, options.rounds),
        "gap_seconds": GAP_SECONDS,
        "waiting": WAITING,
        "seconds": options.crowd_seconds,
        "together": TOGETHER,
    }
    async with worker("tests.bench.sides.others", task, own.directory / f"{queue}.log", python=PYTHON) as child:
        await child.ready()
        seen = await child.word(LIMIT_SECONDS)
    progress(0.5)
    return seen
