"""What the machines cost, by pool: the prices are the configuration's, for AWS has them in no region but two."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from allocator import config
from allocator.fleet.description import Fleet
from allocator.fleet.refusals import NoFleet

HOURS_A_MONTH = 730


@dataclass(frozen=True, slots=True)
class Cost:
    """What machines of one pool and type cost; None where no price is set."""

    pool: str
    instance_type: str
    vms: int
    hour: float | None
    month: float | None


def priced(pool: config.Pool, fleet: config.Fleet) -> config.Pool:
    """The configured pool with the price of the fleet's default type; as it is if it has a price, or none is known."""
    if pool.price_per_hour is not None or pool.currency != fleet.currency or not fleet.prices:
        return pool
    try:
        price = fleet.prices.get(Fleet.of(fleet).default_type)
    except NoFleet:
        return pool
    return pool if price is None else pool.model_copy(update={"price_per_hour": Decimal(str(price))})


def costs(rows: Iterable[Mapping[str, Any]], default_type: str, prices: Mapping[str, float]) -> list[Cost]:
    """What each kind of machine costs that is there, by pool and type; disks and traffic are not in it."""
    kinds = Counter((row["pool"], row["instance_type"] or default_type) for row in rows if row["instance_id"])
    return [_cost(pool, kind, vms, prices.get(kind)) for (pool, kind), vms in sorted(kinds.items())]


def total(found: Iterable[Cost]) -> Cost:
    """The sum of those that have a price."""
    listed = list(found)
    hour = sum(each.hour or 0 for each in listed)
    return Cost("all", "", sum(each.vms for each in listed), round(hour, 4), round(hour * HOURS_A_MONTH, 2))


def _cost(pool: str, kind: str, vms: int, price: float | None) -> Cost:
    if price is None:
        return Cost(pool, kind, vms, None, None)
    return Cost(pool, kind, vms, round(price * vms, 4), round(price * vms * HOURS_A_MONTH, 2))
