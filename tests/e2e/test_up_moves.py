"""People and fleets are moved: a job to another machine, all machines from one transport to the other."""

import asyncpg
import pytest

from tests.e2e.test_up import ask, becomes, end
from tests.support.up import RunningUp, open_directory, running_up, until


def transports(up: RunningUp) -> set[str | None]:
    """How its machines speak."""
    return {vm["transport"] for vm in up.json("vms", "list")}


@pytest.mark.slow
@pytest.mark.timeout(480)  # it starts all of LabLink four times
async def test_a_fleet_is_moved_and_nobody_loses_a_lease() -> None:
    with open_directory() as directory:
        with running_up(directory, "--vms=1", "--transport=hub") as up:
            assert transports(up) == {"hub"}
            address, key = ask(up, "sleep 300")
            becomes(address, key, status="active")
            owner = await asyncpg.connect(up.dsn())
            await owner.execute("UPDATE pools SET transport = 'direct'")
            await owner.close()
            until(lambda: transports(up) == {"direct"}, "the machine to speak to PostgreSQL")
            becomes(address, key, status="active", exit_code=None)
            end(address, key)
            until(lambda: {vm["status"] for vm in up.json("vms", "list")} == {"available"}, "the machine to be free")
            address, key = ask(up, "echo done")
            lease = becomes(address, key, status="active", exit_code=0)["id"]

        for transport, speaks in (("hub", "hub"), ("direct", "direct"), ("auto", "hub")):
            with running_up(directory, "--vms=1", f"--transport={transport}") as up:  # each time at another port
                until(lambda: transports(up) == {speaks}, f"the machine to speak {speaks}")  # noqa: B023
                assert up.json("leases", "show", lease)["status"] == "active"


def test_a_job_whose_machine_is_taken_out_begins_again_on_another(up: RunningUp) -> None:
    address, key = ask(up, "sleep 300")
    hostname = becomes(address, key, status="active")["hostname"]
    try:
        assert up.lablink("vms", "fail", hostname, "--reason", "noisy").returncode == 0
        assert becomes(address, key, status="active", moves=1)["hostname"] != hostname
        end(address, key)
    finally:
        up.lablink("vms", "return", hostname)
    until(lambda: {vm["status"] for vm in up.json("vms", "list")} == {"available"}, "all machines to be free")
