"""What ops type about machines in the cloud, and what it answers."""

from tests.support.admin import answer, lablink
from tests.support.database import Database


async def test_a_machine_drains_until_it_is_returned(database: Database) -> None:
    await database.vm("vm-1")

    drained = await lablink(database, "vms", "drain", "vm-1")
    (row,) = await answer(database, "vms", "list")
    await lablink(database, "vms", "return", "vm-1")

    assert "lablink vms return vm-1" in drained.stdout
    assert (row["status"], row["draining"]) == ("available", True)
    assert (await answer(database, "vms", "list"))[0]["draining"] is False


async def test_a_machine_of_the_fleet_is_invited_by_nobody_else(database: Database) -> None:
    owner = await database.connect("lablink")
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")

    refused = await lablink(database, "vms", "invite", "vm-1")

    assert refused.returncode == 1
    assert "lablink fleet replace vm-1" in refused.stderr
    assert await owner.fetchval("SELECT count(*) FROM join_tokens") == 0


async def test_without_a_fleet_a_command_says_how_to_have_one(database: Database) -> None:
    for command in (["cost"], ["plan"], ["destroy"]):
        refused = await lablink(database, "fleet", *command)
        assert refused.returncode == 2
        assert "--set fleet=aws" in refused.stderr and "Traceback" not in refused.stderr


async def test_where_nothing_is_yet_it_is_said_what_would_make_it(database: Database) -> None:
    none = await lablink(database, "fleet", "status")
    await lablink(database, "vms", "invite", "gpu-7")
    invited = await lablink(database, "vms", "show", "gpu-7")

    assert "fleet=aws" in none.stdout and "lablink fleet grow" in none.stdout
    assert invited.returncode == 4 and "has not enrolled yet" in invited.stderr
