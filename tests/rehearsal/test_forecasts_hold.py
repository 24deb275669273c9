"""How often what those who wait were told first turned out right: over plans that differ, and days that do."""

from dataclasses import dataclass, replace

import pytest

from allocator.rehearsal.plan import Habits, Mishaps, Plan
from allocator.rehearsal.stage import staged
from tests.rehearsal.trials import tried
from tests.support.database import Database

MINUTE, HOUR = 60, 3600
USUAL = Plan(30, 10 * MINUTE, 9, MINUTE, 15 * MINUTE, HOUR, known=True, tick_seconds=20.0)

PLANS = {
    "all at once": replace(USUAL, arrive_seconds=MINUTE),
    "one after the other": replace(USUAL, arrive_seconds=90 * MINUTE, machines=5),
    "while machines boot": replace(USUAL, arrive_seconds=MINUTE, machines=30, boot_seconds=5 * MINUTE),
    "some stay for ever": replace(USUAL, spread=1.2, use_seconds=10 * MINUTE, lease_seconds=2 * HOUR),
    "some leave, some forget": replace(USUAL, habits=Habits(leaving=15, forgetting=15)),
    "machines die": replace(USUAL, mishaps=Mishaps(deaths_an_hour=20, reboots_an_hour=20)),
    "some want it longer": replace(
        USUAL, use_seconds=20 * MINUTE, lease_seconds=20 * MINUTE, extend_seconds=600, habits=Habits(extending=60)
    ),
    "groups": replace(USUAL, people=40, groups=4),
    "desktops": replace(USUAL, habits=Habits(desktops=80, lineless=5), queue_seconds=2 * HOUR),
}
DAYS = range(8)


@dataclass(slots=True)
class Held:
    """Of how many who were told it held."""

    told: int = 0
    likely: float = 0.0
    sure: float = 0.0

    def add(self, other: "Held") -> None:
        self.told, self.likely, self.sure = self.told + other.told, self.likely + other.likely, self.sure + other.sure

    def __str__(self) -> str:
        likely, sure = self.likely / self.told, self.sure / self.told
        return f"{self.told} told, even odds held for {likely:.0%}, nine of ten for {sure:.0%}"


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_nine_of_ten_are_nine_of_ten(database: Database, capsys: pytest.CaptureFixture[str]) -> None:
    by_plan: dict[str, Held] = {name: Held() for name in PLANS}
    async with staged(database.dsn("lablink")) as owner:
        for name, plan in PLANS.items():
            for day in DAYS:
                came = await tried(owner, replace(plan, seed=day), strict=False)
                shares = came.likely_held or 0.0, came.sure_held or 0.0
                by_plan[name].add(Held(came.told, *(came.told * share for share in shares)))
    everybody = Held()
    for held in by_plan.values():
        everybody.add(held)
    with capsys.disabled():
        print("\n".join(f"{name}: {held}" for name, held in (by_plan | {"everybody": everybody}).items()))
    assert 0.85 <= everybody.sure / everybody.told <= 0.95
    assert 0.4 <= everybody.likely / everybody.told <= 0.6
    assert [name for name, held in by_plan.items() if held.sure / held.told < 0.8] == []
