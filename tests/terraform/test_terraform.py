"""The real terraform through our interface, on resources that need no cloud."""

import asyncio
import os
from pathlib import Path

import pytest

from allocator.fleet.refusals import (
    CredentialsExpired,
    ImageUnknown,
    NoCapacity,
    QuotaReached,
    StateLocked,
    TerraformFailed,
    refusal,
)
from allocator.fleet.terraform import Step, Terraform

MACHINES = """
terraform {
  backend "local" {}
}
variable "vms" { type = map(string) }
variable "broken" {
  type    = bool
  default = false
}
resource "terraform_data" "vm" {
  for_each         = var.vms
  input            = each.value
  triggers_replace = each.value
  provisioner "local-exec" {
    command = each.value
  }
}
"""


class Machines:
    """A root module of machines that are only said to be, each made by a command."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "root"
        self.root.mkdir()
        (self.root / "main.tf").write_text(MACHINES)
        self.state = directory / "state"
        self.work = directory / "work"
        self.terraform = self.another(self.work)

    def another(self, work: Path, **environment: str) -> Terraform:
        return Terraform(self.root, work, dict(os.environ) | environment)

    async def init(self) -> None:
        await self.terraform.init({"path": str(self.state)})

    async def make(self, **vms: str) -> list[Step]:
        steps: list[Step] = []

        async def note(step: Step) -> None:
            steps.append(step)

        await self.terraform.apply(await self.terraform.plan({"vms": vms}), note)
        return steps


@pytest.fixture
async def machines(tmp_path: Path) -> Machines:
    made = Machines(tmp_path)
    await made.init()
    return made


async def test_a_plan_says_what_would_change_and_changes_nothing(machines: Machines) -> None:
    plan = await machines.terraform.plan({"vms": {"vm-1": "true", "vm-2": "true"}})
    assert [(change.key, change.action) for change in plan.changes] == [("vm-1", "create"), ("vm-2", "create")]
    assert await machines.terraform.state() == {}


async def test_an_apply_does_what_its_plan_said_step_by_step(machines: Machines) -> None:
    steps = await machines.make(**{"vm-1": "true", "vm-2": "true"})
    assert (steps[-1].done, steps[-1].total) == (2, 2)
    assert set(await machines.terraform.state()) == {'terraform_data.vm["vm-1"]', 'terraform_data.vm["vm-2"]'}


async def test_a_machine_that_is_another_one_now_is_replaced(machines: Machines) -> None:
    await machines.make(**{"vm-1": "true"})
    (change,) = (await machines.terraform.plan({"vms": {"vm-1": "echo"}})).changes
    assert change.action == "replace"


async def test_what_stays_as_it_is_is_no_step(machines: Machines) -> None:
    await machines.make(**{"vm-1": "true"})
    steps = await machines.make(**{"vm-1": "true", "vm-2": "true"})
    assert {step.total for step in steps} == {1}


async def test_a_machine_can_be_replaced_by_its_address(machines: Machines) -> None:
    await machines.make(**{"vm-1": "true", "vm-2": "true"})
    plan = await machines.terraform.plan(
        {"vms": {"vm-1": "true", "vm-2": "true"}}, replace=['terraform_data.vm["vm-2"]']
    )
    assert [change.key for change in plan.changes if change.action == "replace"] == ["vm-2"]


async def test_all_of_it_can_be_destroyed(machines: Machines) -> None:
    await machines.make(**{"vm-1": "true"})
    await machines.terraform.apply(await machines.terraform.plan({"vms": {"vm-1": "true"}}, destroy=True))
    assert await machines.terraform.state() == {}


async def test_a_plan_that_is_no_longer_true_is_not_done(machines: Machines) -> None:
    old = await machines.terraform.plan({"vms": {"vm-1": "true"}})
    old.path.rename(machines.work / "old")
    await machines.make(**{"vm-2": "true"})
    (machines.work / "old").rename(old.path)
    with pytest.raises(TerraformFailed, match="stale"):
        await machines.terraform.apply(old)


async def test_what_fails_is_told_and_what_was_done_stays(machines: Machines) -> None:
    plan = await machines.terraform.plan({"vms": {"vm-1": "true", "vm-2": "echo no such thing; exit 3"}})
    with pytest.raises(TerraformFailed, match="no such thing"):
        await machines.terraform.apply(plan)
    assert 'terraform_data.vm["vm-1"]' in await machines.terraform.state()


async def test_a_state_that_somebody_works_on_is_left_alone(machines: Machines, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    plan = await machines.terraform.plan({"vms": {"vm-1": f"cat {begun}"}})
    apply = asyncio.create_task(machines.terraform.apply(plan))
    writer = await asyncio.to_thread(os.open, begun, os.O_WRONLY)
    other = machines.another(tmp_path / "other")
    other.lock_seconds = 0
    try:
        await other.init({"path": str(machines.state)})
        with pytest.raises(StateLocked, match="lablink fleet unlock"):
            await other.plan({"vms": {}})
    finally:
        os.close(writer)
        await apply


async def test_a_cancelled_apply_waits_until_the_state_is_written(machines: Machines, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    os.mkfifo(begun)
    plan = await machines.terraform.plan({"vms": {"vm-1": "true", "vm-2": f"cat {begun}"}})
    is_made = asyncio.Event()

    async def note(step: Step) -> None:
        if step.done:
            is_made.set()

    apply = asyncio.create_task(machines.terraform.apply(plan, note))
    writer = await asyncio.to_thread(os.open, begun, os.O_WRONLY)
    await is_made.wait()
    apply.cancel()
    os.close(writer)
    with pytest.raises(asyncio.CancelledError):
        await apply
    assert 'terraform_data.vm["vm-1"]' in await machines.terraform.state()
    assert not list(tmp_path.glob("*.lock.info"))


async def test_values_are_on_no_command_line_and_for_nobody_else_to_read(machines: Machines) -> None:
    await machines.terraform.plan({"vms": {"vm-1": "true"}})
    assert (machines.work / "variables.tfvars.json").stat().st_mode & 0o077 == 0
    assert machines.work.stat().st_mode & 0o077 == 0


async def test_variables_that_are_refused_are_named(machines: Machines) -> None:
    with pytest.raises(TerraformFailed, match="vms"):
        await machines.terraform.plan({"vms": 7})


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("api error InsufficientInstanceCapacity: We currently do not have sufficient g5.xlarge capacity", NoCapacity),
        ("api error VcpuLimitExceeded: You have requested more vCPU capacity than your limit", QuotaReached),
        ("api error ExpiredToken: The security token included in the request is expired", CredentialsExpired),
        ("api error InvalidAMIID.NotFound: The image id '[ami-1]' does not exist", ImageUnknown),
        ("something else", TerraformFailed),
    ],
)
def test_the_usual_refusals_say_what_to_do(words: str, kind: type[TerraformFailed]) -> None:
    error = refusal("apply", [{"@level": "error", "diagnostic": {"summary": "creating EC2 Instance", "detail": words}}])
    assert type(error) is kind
    assert words in str(error)
    assert kind.advice in str(error)
