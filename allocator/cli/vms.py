"""`lablink vms`: the machines, and what an admin does with one."""

from typing import Annotated

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, follow_database, run_on_database

app = typer.Typer(help="List the machines, watch them, take one out of service, invite one.", **CONTEXT)

Hostname = Annotated[str, typer.Argument(metavar="HOSTNAME", help="The machine's name: see `lablink vms list`.")]

COLUMNS = {
    "hostname": "VM",
    "status": "Status",
    "email": "Person",
    "lease_status": "Lease",
    "crd_command": "Command",
    "seen_at": "Last seen",
    "updated_at": "Changed",
    "reason": "Reason",
}
FACTS = COLUMNS | {"lease_id": "Lease id", "pool": "Pool", "epoch": "Epoch", "created_at": "Created"}
NONE = "There are no machines yet. Start some with `lablink up`, or invite one: lablink vms invite HOSTNAME"


@app.command("list")
def list_vms(
    retired: Annotated[bool, typer.Option("--all", "-a", help="Also the retired ones.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Every machine: who has it, what runs on it, when it was last heard.

    Example: `lablink vms list --json | jq '.[] | select(.status == "failed")'`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        rows, now = await admin.vms(connection, retired=retired), await admin.clock(connection)
        output.show_rows(rows, COLUMNS, now=now, empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("show")
def show_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """One machine in full, with the last things that happened to it.

    Example: `lablink vms show vm-1`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        vm, now = await admin.vm(connection, hostname), await admin.clock(connection)
        events = await admin.newest_events(connection, 10, hostname=hostname)
        output.show_thing(vm, FACTS, events, now=now, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("watch")
def watch_vms(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Follow the machines as they change, until Ctrl-C.

    A live table on a terminal; otherwise, and with --json, one line for each change.
    """
    from allocator.cli.watch import Watch

    watching = Watch(COLUMNS, NONE, as_json=as_json)
    try:
        follow_database(watching.look, data_dir, settings)
    finally:
        watching.close()


@app.command("fail")
def fail_vm(
    hostname: Hostname,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why, for the history and for other admins.")] = "",
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Take a machine out of service. Whoever has it loses it; it stays out until it is returned.

    Example: `lablink vms fail vm-2 --reason "the disk is noisy"`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        status = await admin.fail_vm(connection, hostname, reason)
        output.show_change(
            {"hostname": hostname, "status": status},
            f"{hostname} is {status}. Put it back into service: lablink vms return {hostname}",
            as_json=as_json,
        )

    run_on_database(work, data_dir, settings)


@app.command("return")
def return_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Put a failed machine back into service: it cleans itself, then it is available.

    Example: `lablink vms return vm-2`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        status = await admin.return_vm(connection, hostname)
        hint = "; it is available when its client has cleaned it" if status == "cleaning" else ""
        output.show_change({"hostname": hostname, "status": status}, f"{hostname} is {status}{hint}.", as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("release")
def release_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """End the lease on a machine, whoever holds it; the machine cleans itself and is available again.

    Example: `lablink vms release vm-2`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        status = await admin.release_vm(connection, hostname)
        output.show_change({"hostname": hostname, "status": status}, f"{hostname} is {status}.", as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("retire")
def retire_vm(
    hostname: Hostname,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, even if somebody has it.")] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Take a machine out for good. It comes back only by being invited again.

    Example: `lablink vms retire vm-2`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        vm = await admin.vm(connection, hostname)
        if vm["lease_id"] and not yes:
            typer.confirm(f"{vm['email']} has {hostname} and loses it. Retire it?", abort=True, err=True)
        status = await admin.retire_vm(connection, hostname)
        output.show_change({"hostname": hostname, "status": status}, f"{hostname} is {status}.", as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("invite")
def invite_vm(
    hostname: Hostname,
    pool: Annotated[str, typer.Option("--pool", help="The kind of machine that it is.")] = "default",
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=10_080, help="How long the token is good for.")] = 60,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Let a machine join: prints a token with which it may enrol once.

    The token is shown now and never again; the database only keeps its SHA-256. Put it into the file that the machine's
    `join_token_file` setting names.

    Example: `lablink vms invite vm-9 > join-token`
    """
    from allocator.cli import admin, output

    async def work(connection: admin.Connection) -> None:
        token = await admin.invite_vm(connection, hostname, pool, minutes * 60)
        output.show_change({"hostname": hostname, "token": token}, token, as_json=as_json)

    run_on_database(work, data_dir, settings)
