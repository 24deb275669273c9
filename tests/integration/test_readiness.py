"""What `lablink up` says of its machines when it has waited long enough."""

import pytest

from allocator.local import UpFailed, readiness
from tests.support.database import Database


@pytest.fixture(autouse=True)
def no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "LIMIT_SECONDS", 0.0)


async def test_a_machine_that_does_not_come_up_is_told_of_and_keeps_the_others_no_longer(database: Database) -> None:
    await database.vm("vm-1")

    told = await readiness.all_seen(await database.connect(), ["vm-1", "vm-2"])

    assert told.startswith("1 available; 1 did not come up")
    assert "see logs/vm-" in told


async def test_a_start_at_which_no_machine_comes_up_is_refused(database: Database) -> None:
    with pytest.raises(UpFailed, match="No machine came up"):
        await readiness.all_seen(await database.connect(), ["vm-1", "vm-2"])
