"""The protocol keeps its promises in every state it can reach, and needs each of its rules for that.

`pytest -s tests/model` also prints how many states there are, and the shortest run that breaks each switched rule.
"""

from dataclasses import fields

import pytest

from .client import Step
from .explore import explore
from .promises import PROMISES, broken_by, broken_in
from .scenarios import BREAKS, LARGE, WORLDS, World
from .state import ACTIVE, DESKTOP, ENDED, IN_USE, Database, Faults, Lease, Rules, first_state

RULES = [rule.name for rule in fields(Rules)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    "world", [pytest.param(WORLDS[name], id=name, marks=[pytest.mark.slow] * (name in LARGE)) for name in WORLDS]
)
def test_every_promise_is_kept_in_every_state_when_the_machine_may_be(world: World) -> None:
    result = explore(Rules(), *world)
    print(f"\n{result.states:,} states, {world}")
    assert result.counterexample is None, str(result.counterexample)
    assert result.states > 10_000


@pytest.mark.parametrize("rule", RULES)
def test_a_promise_breaks_when_one_rule_is_switched(rule: str) -> None:
    promise, world = BREAKS[rule]
    found = explore(Rules().switched(rule), *world).counterexample
    print(f"\n{rule} switched: {found}")
    assert found is not None
    assert found.promise == promise


def test_nothing_breaks_where_a_rule_was_switched_when_all_are_on() -> None:
    """Each of those worlds is part of one that is explored whole above."""
    for _, (faults, kinds) in BREAKS.values():
        wider = (world for world in WORLDS.values() if world.kinds == kinds)
        assert any(all(few <= many for few, many in zip(faults, world.faults, strict=True)) for world in wider)


def test_the_promises_that_no_single_rule_breaks_first_are_watched_as_well() -> None:
    new = first_state(Rules(), Faults(), (DESKTOP,))
    ended = new._replace(database=new.database._replace(leases=(Lease(DESKTOP, ENDED),)))
    active = new._replace(database=Database(IN_USE, 1, 0, (Lease(DESKTOP, ACTIVE, 1),)))
    seen = {
        broken_in(active),
        broken_by(ended, Step("somebody: asks again with the same lease", new)),
    }
    assert seen == set(PROMISES) - {promise for promise, _ in BREAKS.values()} == {"I4", "I8"}
