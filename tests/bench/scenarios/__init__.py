"""What the bench can measure, by name. Each has modules with a `measure` that gives sections."""

from collections.abc import Awaitable, Callable

from tests.bench.figures import Section
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.bench.scenarios import (
    bulk,
    burst,
    ceilings,
    claim,
    crowd,
    delivery,
    effort,
    herd,
    polling,
    recovery,
    swarm_delivery,
    terraform,
    upkeep,
    waiting,
    yardsticks,
)

Measure = Callable[[Ground, Options, Progress], Awaitable[list[Section]]]

SCENARIOS: dict[str, tuple[Measure, ...]] = {
    "claim": (ceilings.measure, crowd.measure, effort.measure, claim.measure),
    "delivery": (delivery.measure, swarm_delivery.measure, polling.measure),
    "burst": (burst.measure,),
    "bulk": (bulk.measure, upkeep.measure),
    "herd": (herd.measure,),
    "recovery": (recovery.measure,),
    "waiting": (waiting.measure,),
    "yardsticks": (yardsticks.measure,),
}
"""In the order in which they are measured."""

LONGER = {"waiting"}
"""For which a quick run has no time, unless it is asked for them by name."""

TERRAFORM: dict[str, tuple[Measure, ...]] = {"terraform": (terraform.measure,)}
