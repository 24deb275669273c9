"""Times `lablink fleet` beside plain terraform: the same machines, of the same root, on the same stand-in for AWS."""

import asyncio
import json
import shutil
import signal
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allocator.fleet.description import root_directory
from allocator.fleet.terraform import NOT_COPIED
from tests.bench.figures import Section, Value
from tests.bench.ground import Ground
from tests.bench.options import Options, Progress
from tests.support.admin import place
from tests.support.cloud import Aws, fresh, moto_server
from tests.support.terraform import environment_in
from tests.support.up import LABLINK

AIM = 1.15
DATABASE = "bench_machines"
MISSING = "There is no terraform on this machine, so machines are not timed: see CONTRIBUTING.md."

Command = Sequence[str]


class MachinesFailed(Exception):
    """A command went wrong, with what it said; or it did not do what it was timed for."""


@dataclass(frozen=True, slots=True)
class Way:
    """What somebody types to have the machines, and to be rid of them."""

    make: Sequence[Command]
    remove: Sequence[Command]
    directory: Path
    environment: dict[str, str]


async def measure(own: Ground, options: Options, progress: Progress) -> list[Section]:
    """The section about machines made and removed."""
    machines = options.machines
    section = Section(f"Terraform: {machines} machines on a stand-in for AWS", beside="terraform")
    if shutil.which("terraform") is None:
        section.remarks.append(MISSING)
        return [section]
    await own.clone(DATABASE)
    with tempfile.TemporaryDirectory(prefix="lablink-bench-machines-") as name, moto_server() as moto:
        directory, aws = Path(name), fresh(moto, Path(name))
        environment = environment_in(directory) | aws.environment
        ours = await _taken(_ours(own, aws, directory, environment, machines), aws, machines, progress)
        aws = fresh(moto, directory)
        plain = await _taken(_plain(aws, directory, environment, machines), aws, machines, progress)
    for what, mine, theirs in zip((f"{machines} machines made", "all of them removed"), ours, plain, strict=True):
        section.values.append(Value(what, mine, theirs, "s"))
        section.values.append(Value(f"{what}: as long as terraform takes", mine / theirs, None, "×", AIM))
    section.remarks.append("LabLink: fleet grow, fleet destroy. terraform: init and apply, destroy, of the same root.")
    return [section]


def _ours(own: Ground, aws: Aws, directory: Path, environment: dict[str, str], machines: int) -> Way:
    settings = [f"--set={each}" for each in aws.options(directory / "work")]
    where = [*place(own.dsn("lablink", DATABASE)), *settings]
    passwords = {"OWNER": own.passwords["lablink"], "SERVICE": own.passwords["lablink_app"]}
    fleet = [str(LABLINK), "fleet"]
    return Way(
        make=[[*fleet, "grow", str(machines), *where]],
        remove=[[*fleet, "destroy", "--yes", *where]],
        directory=directory,
        environment=environment | passwords,
    )


def _plain(aws: Aws, directory: Path, environment: dict[str, str], machines: int) -> Way:
    origin, told = root_directory(), json.loads(aws.settings.read_text())
    for each in (origin, origin.parent / "modules"):
        shutil.copytree(each, directory / "plain" / each.name, ignore=NOT_COPIED)
    root = directory / "plain" / origin.name
    vms = {f"vm-{number}": {"pool": "default"} for number in range(1, machines + 1)}
    (root / "terraform.tfvars.json").write_text(json.dumps(told["variables"] | {"vms": vms}))
    backend = [f"-backend-config={name}={value}" for name, value in told["backend"].items()]
    return Way(
        make=[["terraform", "init", *backend], ["terraform", "apply", "-auto-approve"]],
        remove=[["terraform", "destroy", "-auto-approve"]],
        directory=root,
        environment=environment,
    )


async def _taken(way: Way, aws: Aws, machines: int, progress: Progress) -> tuple[float, float]:
    """Seconds to make them, and to remove them. Raises MachinesFailed."""
    seconds = []
    for commands, left in ((way.make, machines), (way.remove, 0)):
        began = time.perf_counter()
        for command in commands:
            await _run(command, way)
        seconds.append(time.perf_counter() - began)
        if len(aws.instances()) != left:
            raise MachinesFailed(f"There are {len(aws.instances())} machines instead of {left}.")
        progress(0.25)
    return seconds[0], seconds[1]


async def _run(command: Command, way: Way) -> None:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=way.directory,
        env=way.environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        said, _ = await process.communicate()
    except asyncio.CancelledError:
        process.send_signal(signal.SIGINT)
        await process.wait()
        raise
    if process.returncode:
        raise MachinesFailed(said.decode(errors="replace")[-4000:])
