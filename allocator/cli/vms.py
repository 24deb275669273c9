"""`lablink vms`: the machines, and what an admin does with one."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.options import CONTEXT, DataDir, Json, Settings, follow_database, run_on_database

if TYPE_CHECKING:
    from allocator.cli.admin import Act
    from client.network import Connection

app = typer.Typer(help="List the machines, watch them, take one out of service, invite one.", **CONTEXT)

Hostname = Annotated[str, typer.Argument(metavar="HOSTNAME", help="The machine's name: see `lablink vms list`.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, even if somebody has it.")]

COLUMNS = {
    "hostname": "VM",
    "status": "Status",
    "email": "Person",
    "lease_id": "Lease",
    "crd_command": "Command",
    "seen_at": "Seen",
    "updated_at": "Changed",
    "reason": "Reason",
    "draining": "Draining",
}
FACTS = COLUMNS | {
    "lease_status": "Lease status",
    "pool": "Pool",
    "transport": "Transport",
    "transport_wished": "Transport wished",
    "used_at": "Used",
    "epoch": "Epoch",
    "created_at": "Created",
    "boot": "Boot",
}
IN_SERVICE = ("available", "in-use", "cleaning")
NEXT = {
    "failed": "Put it back into service: lablink vms return {}",
    "cleaning": "It is available when its client has cleaned it.",
    "retired": "To have it back, invite it again: lablink vms invite {}",
}
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

    async def work(connection: "Connection") -> None:
        rows, now = await admin.vms(connection, retired=retired), await admin.clock(connection)
        output.show_rows(rows, COLUMNS, now=now, empty=NONE, as_json=as_json)

    run_on_database(work, data_dir, settings)


@app.command("show")
def show_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """One machine in full, with the last things that happened to it.

    Example: `lablink vms show vm-1`
    """
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        vm, now = await admin.vm(connection, hostname), await admin.clock(connection)
        boot = await admin.last_boot(connection, vm["id"])
        vm["boot"] = boot if as_json or boot is None else _boot_words(boot)
        events = await admin.newest_events(connection, 10, hostname=hostname)
        output.show_thing(vm, FACTS, events, now=now, as_json=as_json)

    run_on_database(work, data_dir, settings)


def _boot_words(boot: Mapping[str, Any]) -> str:
    phases = ", ".join(f"{name} {seconds:g} s" for name, seconds in boot["phases"])
    usual = ""
    if boot["p50_seconds"] is not None:
        usual = (
            f"; half of its pool's boots take {boot['p50_seconds']:g} s or less, nine tenths {boot['p90_seconds']:g} s"
        )
    return f"{boot['seconds']:g} s: {phases}{usual}"


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
    """Take a machine out of service. Whoever has it moves to another; it stays out until it is returned.

    Example: `lablink vms fail vm-2 --reason "the disk is noisy"`
    """
    _act("fail", hostname, reason, as_json=as_json, data_dir=data_dir, settings=settings)


@app.command("drain")
def drain_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Lend a machine to nobody any more. Whoever has it keeps it to the end.

    Example: `lablink vms drain vm-2`
    """
    sentence = "{} is not lent any more. To take that back: lablink vms return {}"
    _act("drain", hostname, as_json=as_json, data_dir=data_dir, settings=settings, sentence=sentence)


@app.command("return")
def return_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Put a machine back into service: a failed one cleans itself first, one that was draining is lent again.

    Example: `lablink vms return vm-2`
    """
    _act("return", hostname, as_json=as_json, data_dir=data_dir, settings=settings)


@app.command("release")
def release_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """End the lease on a machine, whoever holds it; the machine cleans itself and is available again.

    Example: `lablink vms release vm-2`
    """
    _act("release", hostname, as_json=as_json, data_dir=data_dir, settings=settings)


@app.command("retire")
def retire_vm(
    hostname: Hostname,
    yes: Yes = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Take a machine out for good. It comes back only by being invited again.

    Example: `lablink vms retire vm-2`
    """
    if not yes:
        _ask_first(hostname, ("in-use",), "Retire it?", data_dir, settings)
    _act("retire", hostname, as_json=as_json, data_dir=data_dir, settings=settings)


@app.command("rotate")
def rotate_vm(hostname: Hostname, as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Have a machine make itself a new password, now. Its old one is worth nothing from then on; its lease goes on.

    Example: `lablink vms rotate vm-2`
    """
    from allocator.cli import admin

    sentence = "{} makes itself a new password when it connects next; lablink vms show {} tells when it has."
    _act("rotate", hostname, as_json=as_json, data_dir=data_dir, settings=settings, sentence=sentence)

    async def work(connection: "Connection") -> None:
        await admin.disconnect_vm(connection, hostname)  # once the wish is committed

    run_on_database(work, data_dir, settings)


@app.command("revoke")
def revoke_vm(
    hostname: Hostname,
    yes: Yes = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Make a machine's password worth nothing. Whoever has the machine loses it; only an invitation brings it back.

    Example: `lablink vms revoke vm-2`
    """
    if not yes:
        _ask_first(hostname, ("in-use",), "Revoke its credential?", data_dir, settings)
    sentence = "{} is failed, and cannot log in any more. To have it back: lablink vms invite {}"
    _act("revoke", hostname, as_json=as_json, data_dir=data_dir, settings=settings, sentence=sentence)


@app.command("invite")
def invite_vm(
    hostname: Annotated[str, typer.Argument(metavar="HOSTNAME", help="The name that the machine will have.")],
    pool: Annotated[str, typer.Option("--pool", help="The kind of machine that it is.")] = "default",
    minutes: Annotated[int, typer.Option("--minutes", min=1, max=10_080, help="How long the token is good for.")] = 60,
    yes: Yes = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Let a machine join: prints a token with which it may enrol once, and what to type on the machine.

    The token is shown now and never again; the database only keeps its SHA-256. Give the machine a file with it. Where
    there is no systemd, lablink-client enrol takes the place of install. A machine that has this name already is
    replaced when the token is used.

    Example: `lablink vms invite vm-9 > join-token`
    """
    from allocator.cli import admin, output

    if not yes:
        _ask_first(hostname, IN_SERVICE, "Let another machine take its place?", data_dir, settings)

    async def work(connection: "Connection") -> None:
        token = await admin.invite(connection, hostname, pool, minutes * 60)
        output.show_change({"hostname": hostname, "token": token}, token, as_json=as_json)
        if not as_json:
            output.tell(f"On the machine, as root: lablink-client install --url {where} --token-file FILE")

    where = _address(data_dir, settings or [])
    run_on_database(work, data_dir, settings)


def _address(data_dir: Path | None, settings: list[str]) -> str:
    """Where machines find the allocator."""
    from allocator.cli.database import settings_place
    from allocator.config import load_settings

    return load_settings(settings, settings_place(data_dir, settings)).server.url


def _act(
    act: "Act",
    hostname: str,
    *details: str,
    as_json: bool,
    data_dir: Path | None,
    settings: list[str] | None,
    sentence: str = "",
) -> None:
    """Do that with a machine, and say what it is now and what comes next: in `sentence`, if it is given."""
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        status = await admin.act_on_vm(connection, act, hostname, *details)
        words = sentence.replace("{}", hostname) or f"{hostname} is {status}. {NEXT.get(status, '').format(hostname)}"
        output.show_change({"hostname": hostname, "status": status}, words.rstrip(), as_json=as_json)

    run_on_database(work, data_dir, settings)


def _ask_first(
    hostname: str, statuses: Collection[str], question: str, data_dir: Path | None, settings: list[str] | None
) -> None:
    """Ask the person before a machine that has one of `statuses` is taken away; ends the command unless they agree."""
    from allocator.cli import admin, output

    async def work(connection: "Connection") -> None:
        vm = await admin.find_vm(connection, hostname)
        if vm and vm["status"] in statuses:
            lent = f", and {vm['email']} loses it" if vm["lease_id"] else ""
            output.ask(f"{hostname} is {vm['status']}{lent}. {question}")

    run_on_database(work, data_dir, settings)
