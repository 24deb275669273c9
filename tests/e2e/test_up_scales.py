"""A pool of real clients grows as people come and shrinks when they have gone, and nobody loses a machine to that."""

import asyncio
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.e2e.test_up import ask, becomes, end
from tests.support.up import LOOK_EVERY, RunningUp, open_directory, running_up, until

GROWING = ("--vms=1", "--max=4", "--set=pool.spare_machines=0", "--set=pool.shrink_after_seconds=1")

BOOTS_SECONDS = 120.0

pytestmark = pytest.mark.timeout(240)  # each starts all of LabLink


def in_service(up: RunningUp) -> list[str]:
    """The machines of the pool."""
    return sorted(vm["hostname"] for vm in up.json("vms", "list"))


def clients(up: RunningUp) -> int:
    """How many clients run."""
    return len(up.running("lablink-client"))


def homes(directory: Path) -> int:
    """How many machines have left something."""
    return len(list((directory / "vms").glob("vm-*")))


def test_one_machine_becomes_four_and_one_again_while_people_use_them() -> None:
    with open_directory() as directory, running_up(directory, *GROWING) as up:
        assert in_service(up) == ["vm-1"]
        asked = [ask(up, "sleep 600") for _ in range(5)]
        leases = [becomes(*each, BOOTS_SECONDS, status="active", exit_code=None) for each in asked[:4]]
        assert len({lease["hostname"] for lease in leases}) == 4
        assert httpx.get(asked[4][0], headers=asked[4][1], timeout=60).json()["status"] == "queued", "four is the most"

        for each in asked[1:4]:
            end(*each)
        becomes(*asked[4], BOOTS_SECONDS, status="active")
        end(*asked[4])
        until(lambda: len(in_service(up)) == 1, "the pool to shrink")
        until(lambda: clients(up) == 1, "the clients to end")
        until(lambda: homes(directory) == 1, "nothing of them to be left")
        assert in_service(up) == [leases[0]["hostname"]]
        assert becomes(*asked[0], status="active", exit_code=None)["moves"] == 0

        history = up.lablink("events", "--limit", "500", "--json").stdout
        assert "alert." not in history and "lease.failed" not in history
        assert up.lablink("verify").returncode == 0


async def test_what_boots_take_is_written_down_also_of_the_first_and_machines_are_begun_by_that() -> None:
    with open_directory() as directory, running_up(directory, *GROWING) as up:
        owner = await asyncpg.connect(up.dsn())
        try:
            [first] = await owner.fetch("SELECT seconds FROM boots")
            assert first["seconds"] < BOOTS_SECONDS
            assert await owner.fetchval("SELECT wave_time('default')") < timedelta(seconds=BOOTS_SECONDS)
            await owner.execute("UPDATE pools SET min_machines = 2")
            async with asyncio.timeout(BOOTS_SECONDS):
                while await owner.fetchval("SELECT count(*) FROM boots") < 2:  # noqa: ASYNC110
                    await asyncio.sleep(LOOK_EVERY)
        finally:
            await owner.close()


def test_a_paused_pool_serves_nobody_and_starts_nothing_until_it_goes_on() -> None:
    with open_directory() as directory, running_up(directory, *GROWING) as up:
        assert up.lablink("pools", "pause", "default").returncode == 0
        asked = [ask(up, "sleep 600") for _ in range(2)]
        assert "paused" in up.lablink("why", "default").stdout
        assert in_service(up) == ["vm-1"]
        assert up.lablink("pools", "resume", "default").returncode == 0
        for each in asked:
            becomes(*each, BOOTS_SECONDS, status="active", exit_code=None)
