"""What the bench can measure, by name. Each has modules with a `measure` that gives sections."""

from collections.abc import Awaitable, Callable

from tests.bench import (
    bulk,
    burst,
    ceilings,
    claim,
    crowd,
    delivery,
    effort,
    machines,
    polling,
    swarm_delivery,
    swarm_herd,
    swarm_recovery,
    upkeep,
    yardsticks,
)
from tests.bench.figures import Section
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress

Measure = Callable[[Ground, Options, Progress], Awaitable[list[Section]]]

SCENARIOS: dict[str, tuple[Measure, ...]] = {
    "claim": (ceilings.measure, crowd.measure, effort.measure, claim.measure),
    "delivery": (delivery.measure, swarm_delivery.measure, polling.measure),
    "burst": (burst.measure,),
    "bulk": (bulk.measure, upkeep.measure),
    "herd": (swarm_herd.measure,),
    "recovery": (swarm_recovery.measure,),
    "yardsticks": (yardsticks.measure,),
}
"""In the order in which they are measured."""

TERRAFORM: dict[str, tuple[Measure, ...]] = {"terraform": (machines.measure,)}
