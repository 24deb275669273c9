"""`lablink fleet plan, apply, grow, shrink, replace, destroy, unlock`: whatever may change machines."""

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from allocator.cli.fleet.options import Drain, Pool, Yes
from allocator.cli.options import DataDir, Json, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from allocator.fleet.runs import Changes, Run

Number = Annotated[int, typer.Argument(min=1, max=1000, metavar="N", help="How many machines.")]


def plan(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """What `lablink fleet apply` would do, and who is in its way. Nothing is changed.

    Example: `lablink fleet plan --json | jq .remove`
    """
    from allocator.cli.fleet.runs import run_fleet
    from allocator.fleet import acts

    found, people = run_fleet(acts.plan(), data_dir, settings)
    _show(found, "would be ", people, as_json=as_json)


def apply(drain: Drain = False, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Make the machines what the table fleet_vms wants. Say it again after an interruption: it goes on.

    Nobody's machine is removed or replaced: where that would be, it is refused with their names.

    Examples:

    - `lablink fleet apply`
    - `lablink fleet apply --drain`
    """
    from allocator.cli.fleet.runs import run_fleet
    from allocator.fleet import acts

    _show(run_fleet(acts.apply(), data_dir, settings, drain=drain), "", as_json=as_json)


def grow(
    number: Number,
    pool: Annotated[str, typer.Option("--pool", help="The kind of machine that they are.")] = "default",
    prefix: Annotated[
        str, typer.Option("--prefix", metavar="NAME", help="How their names begin: NAME-1, NAME-2 …")
    ] = "vm",
    instance_type: Annotated[str | None, typer.Option("--type", help="Left out: as the fleet's settings say.")] = None,
    ami_id: Annotated[str | None, typer.Option("--ami", help="Left out: as the fleet's settings say.")] = None,
    disk_gb: Annotated[int | None, typer.Option("--disk", help="GB. Left out: as the fleet's settings say.")] = None,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make so many machines more. Those that are wanted and not made yet count, so it may be repeated when interrupted.

    Example: `lablink fleet grow 25 --type g5.xlarge --disk 100`
    """
    from allocator.cli.fleet.runs import run_fleet
    from allocator.fleet import acts

    act = acts.grow(number, pool, prefix, ami_id=ami_id, instance_type=instance_type, disk_gb=disk_gb)
    _show(run_fleet(act, data_dir, settings), "", as_json=as_json)


def shrink(
    number: Number,
    pool: Pool = None,
    drain: Drain = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Remove so many idle machines: what is out of service first, then what nobody had for longest.

    Those that are to go and not removed yet count, so it may be repeated when interrupted. With --drain it waits for
    people where too few are idle; Ctrl-C during the wait takes everything back.

    Example: `lablink fleet shrink 3 --drain`
    """
    from allocator.cli.fleet.runs import run_fleet
    from allocator.fleet import acts

    _show(run_fleet(acts.shrink(number, pool), data_dir, settings, drain=drain), "", as_json=as_json)


def replace(
    hostname: Annotated[str, typer.Argument(metavar="HOSTNAME", help="See `lablink fleet status`.")],
    drain: Drain = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Remove a machine and make a new one of its name, with today's image and type.

    Example: `lablink fleet replace vm-7`
    """
    from allocator.cli.fleet.runs import run_fleet
    from allocator.fleet import acts

    _show(run_fleet(acts.replace(hostname), data_dir, settings, drain=drain), "", as_json=as_json)


def destroy(
    yes: Yes = False, drain: Drain = False, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None
) -> None:
    """Remove every machine of the fleet, and all that was made for them.

    Example: `lablink fleet destroy --drain`
    """
    from allocator.cli.fleet.runs import check_configured, run_fleet
    from allocator.cli.output import ask
    from allocator.fleet import acts

    if not yes:
        check_configured(data_dir, settings)
        ask("Every machine of the fleet goes, for good. Do that?")
    _show(run_fleet(acts.destroy(), data_dir, settings, drain=drain), "", as_json=as_json)


def unlock(
    lock: Annotated[UUID, typer.Argument(metavar="ID", help="The lock's ID, as the refusal says it.")],
    yes: Yes = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Take away the lock of a terraform that was killed on another machine. Of one killed here it goes by itself.

    Be sure that it runs nowhere: two at a time spoil the state.

    Example: `lablink fleet unlock 6f1c2a34-0b1d-4c55-9f7e-2d0c8a7b9e10`
    """
    from allocator.cli.fleet.runs import check_configured, run_fleet
    from allocator.cli.output import ask, say
    from allocator.fleet.acts import Act

    if not yes:
        check_configured(data_dir, settings)
        ask("Does that terraform run nowhere any more?")

    async def work(run: "Run") -> None:
        await run.terraform.init(run.fleet.backend)
        await run.terraform.unlock(str(lock))

    run_fleet(Act("fleet unlock", work), data_dir, settings)
    say("The state is unlocked. Say again what was refused.")


def _show(found: "Changes", would: str, people: "Sequence[str]" = (), *, as_json: bool) -> None:
    """Print what is, or would be, done with machines, and who is in the way."""
    from dataclasses import asdict

    from allocator.cli.output import print_json, say

    if as_json:
        return print_json(asdict(found) | ({"in_the_way": list(people)} if would else {}))
    told = {"made": found.make, "replaced": found.replace, "removed": found.remove, "changed": found.change}
    for what, hostnames in told.items():
        if hostnames:
            say(f"{len(hostnames)} {would}{what}: {', '.join(hostnames)}")
    if not any(told.values()):
        right = f"{found.others} roles and secrets {would}put right."
        say(right if found.others else "Every machine is as it is wanted.")
    for person in people:
        say(f"In the way: {person}")
    if found.make and not would:
        say("They enrol when they have booted: lablink vms watch")
