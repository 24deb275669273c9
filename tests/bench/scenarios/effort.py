"""How much of the processors PostgreSQL uses for a claim, in small and in large fleets."""

import asyncio
from contextlib import AsyncExitStack

from tests.bench.cores import server_seconds
from tests.bench.figures import Section, Value
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.sides.stock import stock

LARGEST = 10_000
AIM_MS, AIM_FLAT = 0.3, 1.3
AT_ONCE = 100
WARM_UP = 2


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about it. The sizes take turns; of every fleet the same number is claimed each time."""
    sizes = [size for size in options.sizes if size <= LARGEST]
    at_once, turns = min(AT_ONCE, *sizes), options.turns * 8
    used = dict.fromkeys(sizes, 0.0)
    async with AsyncExitStack() as opened:
        fleets = {size: await opened.enter_async_context(stock(own, f"bench_effort_{size}", size)) for size in sizes}
        for turn in range(WARM_UP + turns):
            for size, fleet in fleets.items():
                await fleet.refill()
                before = server_seconds(own.server.process.pid)
                await asyncio.gather(*(fleet.claim() for _ in range(at_once)))
                if turn >= WARM_UP:
                    used[size] += server_seconds(own.server.process.pid) - before
            progress(1 / (WARM_UP + turns))
    return [_section({size: 1000 * seconds / (turns * at_once) for size, seconds in used.items()}, at_once)]


def _section(used: dict[int, float], at_once: int) -> Section:
    section = Section(f"PostgreSQL's processor time for an assignment, {at_once} at once")
    section.values += [Value(f"{size:,} VMs", spent, None, "ms", AIM_MS) for size, spent in used.items()]
    small, large = min(used), max(used)
    growth = used[large] / used[small] if used[small] else None
    section.values.append(Value(f"at {large:,} VMs : at {small:,}", growth, None, "×", AIM_FLAT))
    return section
