"""A thousand small rehearsals in which everything goes wrong that can: no rule is broken, and every lease ends."""

import pytest

from allocator.rehearsal.stage import staged
from tests.rehearsal.trials import trial, tried
from tests.support.database import Database

EVERY_DAY = 60
ALL = 1000
AT_ONCE = 20


def chunks(first: int, last: int) -> list[range]:
    """Seeds that share a database, which each leaves as it was."""
    return [range(n, min(n + AT_ONCE, last)) for n in range(first, last, AT_ONCE)]


async def broken(database: Database, seeds: range) -> dict[int, list[str]]:
    """What was broken, by seed."""
    async with staged(database.dsn("lablink")) as owner:
        found = {seed: (await tried(owner, trial(seed))).broken for seed in seeds}
    return {seed: rules for seed, rules in found.items() if rules}


@pytest.mark.parametrize("seeds", chunks(0, EVERY_DAY), ids=str)
async def test_whatever_goes_wrong_the_rules_hold_and_every_lease_ends(database: Database, seeds: range) -> None:
    assert await broken(database, seeds) == {}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seeds", chunks(EVERY_DAY, ALL), ids=str)
async def test_the_same_of_many_more(database: Database, seeds: range) -> None:
    assert await broken(database, seeds) == {}
