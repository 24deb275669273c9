"""`lablink fleet status, cost, aliens, mend`: how machines in the cloud are, what they cost, what is odd."""

from typing import TYPE_CHECKING, Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings

if TYPE_CHECKING:
    from allocator.fleet.reconcile import Alien
    from allocator.fleet.runs import Run

STATUS = {
    "hostname": "VM",
    "pool": "Pool",
    "why": "How it is",
    "status": "Status",
    "held_by": "Person",
    "held_until": "Until",
    "instance_id": "Instance",
    "reboots": "Reboots",
}
COST = {"pool": "Pool", "instance_type": "Type", "vms": "VMs", "hour": "An hour", "month": "A month"}
ALIENS = {"what": "What", "hostname": "VM", "instance": "Instance", "cure": "Mend it"}
NONE = "There are no machines in the cloud. Where fleet=aws is set, this makes some: lablink fleet grow N"


def status(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Every machine of the fleet: whether it is wanted, which instance it is, who has it.

    Example: `lablink fleet status`
    """
    from allocator.cli.fleet.runs import ask_fleet
    from allocator.cli.output import show_rows
    from allocator.fleet import record

    rows = ask_fleet(record.status, data_dir, settings)
    if not as_json:
        rows = [dict(row) | {"reboots": row["reboots"] or None} for row in rows]
    show_rows(rows, STATUS, empty=NONE, as_json=as_json)


def cost(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """What the machines cost an hour and a month, by pool and type, with the prices of fleet.prices.

    Disks, addresses and traffic are not in it.

    Example: `lablink fleet cost --set 'fleet.prices={t3.large: 0.096}'`
    """
    from dataclasses import asdict

    from allocator.cli.fleet.runs import ask_fleet, fleet_settings
    from allocator.cli.output import complain, show_rows
    from allocator.fleet import record
    from allocator.fleet.cost import costs, total
    from allocator.fleet.description import Fleet

    told = fleet_settings(data_dir, settings)
    found = costs(ask_fleet(record.status, data_dir, settings), Fleet.of(told).default_type, told.prices)
    columns = COST | {key: f"{COST[key]} ({told.currency})" for key in ("hour", "month")}
    rows = [asdict(each) for each in ([*found, total(found)] if found else [])]
    show_rows(rows, columns, empty=NONE, as_json=as_json)
    if missing := sorted({each.instance_type for each in found if each.hour is None}):
        complain(f"No price is set for {', '.join(missing)}: give --set 'fleet.prices={{{missing[0]}: …}}'")


def aliens(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Instances without a row, rows without an instance, and what only Terraform's state knows; and what mends each.

    Example: `lablink fleet aliens`
    """
    from dataclasses import asdict

    from allocator.cli.fleet.runs import run_fleet
    from allocator.cli.output import show_rows
    from allocator.fleet.acts import Act

    found = run_fleet(Act("fleet aliens", _found), data_dir, settings)
    empty = "EC2, the record and Terraform's state agree."
    show_rows([asdict(each) for each in found], ALIENS, empty=empty, as_json=as_json)


def mend(
    name: Annotated[str, typer.Argument(metavar="NAME", help="An instance or hostname of `lablink fleet aliens`.")],
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Mend what `lablink fleet aliens` lists: end an instance that nobody knows, or retire a machine that is gone.

    Example: `lablink fleet mend i-0123456789abcdef0`
    """
    from dataclasses import asdict

    from allocator.cli.fleet.runs import run_fleet
    from allocator.cli.output import show_change
    from allocator.fleet import reconcile, record
    from allocator.fleet.acts import Act

    async def work(run: "Run") -> "Alien":
        found = await _found(run)
        async with record.opened(run.connect) as connection:
            return await reconcile.mend(run.fleet, connection, found, name)

    mended = run_fleet(Act("fleet mend", work), data_dir, settings)
    words = f"{mended.hostname or mended.instance} is mended: it was {_a(mended.what)}."
    show_change(asdict(mended), words, as_json=as_json)


async def _found(run: "Run") -> "list[Alien]":
    from allocator.fleet import reconcile, record

    await run.terraform.init(run.fleet.backend)
    state = await run.terraform.state()
    async with record.opened(run.connect) as connection:
        return await reconcile.aliens(run.fleet, connection, state)


def _a(what: str) -> str:
    return f"an {what}" if what.startswith("i") else f"a {what}"
