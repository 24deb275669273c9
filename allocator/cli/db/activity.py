"""`lablink db connections, kill-idle, slow, locks, listeners`: who is connected, what they do, who waits for whom."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database
from allocator.cli.units import seconds

if TYPE_CHECKING:
    from allocator.upkeep.activity import Cut, Session
    from client.network import Connection

app = typer.Typer()

SESSIONS = {
    "pid": "Process",
    "role": "Role",
    "vm": "VM",
    "application": "Program",
    "address": "From",
    "state": "State",
    "since": "Since",
    "in_transaction": "In a transaction since",
    "query": "Last statement",
}
STATEMENTS = {
    "calls": "Calls",
    "mean_seconds": "Mean s",
    "total_seconds": "Total s",
    "rows": "Rows",
    "query": "Statement",
}
UNCOUNTED = """The server does not count statements. Have a superuser put pg_stat_statements into \
shared_preload_libraries, restart it, and run in this database: CREATE EXTENSION pg_stat_statements"""
WAITS = {"pid": "Process", "blocker": "Waits for", "what": "What"}


@app.command("connections")
def show_connections(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Who is connected, from where, and what they did last. Literals are left out: they may be secrets."""
    from allocator.upkeep import activity

    async def work(connection: "Connection") -> None:
        found = await activity.sessions(connection)
        await _show(connection, _plain(found), SESSIONS, "Nobody else is connected.", as_json)

    run_on_database(work, data_dir, settings)


@app.command("kill-idle")
def kill_idle(
    older: Annotated[str, typer.Option("--older", metavar="TIME", help="Idle for at least that long.")] = "10m",
    in_transaction: Annotated[
        bool, typer.Option("--in-transaction", help="Also who left a transaction open; what they did in it is undone.")
    ] = False,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """End connections on which nothing happened for a while, and say whose they were.

    Allocators and machines that listen may be among them: they come back by themselves and lose nothing.

    Example: `lablink db kill-idle --older 30m`
    """
    from allocator.upkeep import activity

    limit, cut = seconds(older), list[activity.Cut]()

    async def work(connection: "Connection") -> None:
        cut.extend(await activity.cut_idle(connection, limit, in_transaction=in_transaction))

    run_on_database(work, data_dir, settings)
    _tell_cuts(cut, limit, as_json)
    if any(not each.done for each in cut):
        raise typer.Exit(1)


@app.command("slow")
def show_slow(
    over: Annotated[str, typer.Option("--over", metavar="TIME", help="Running for at least that long.")] = "1s",
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """Statements that take long now; where pg_stat_statements is installed, also those that took most altogether."""
    from allocator.cli import output
    from allocator.upkeep import activity

    limit = seconds(over)

    async def work(connection: "Connection") -> None:
        now, counted = await activity.slow(connection, limit), await activity.statements(connection)
        if as_json:
            return output.print_json({"now": _plain(now), "statements": None if counted is None else _plain(counted)})
        await _show(connection, _plain(now), SESSIONS, f"No statement has run for {output.duration(limit)}.", as_json)
        if counted is None:
            return output.say(UNCOUNTED)
        rows = [row | _rounded(row) for row in _plain(counted)]
        await _show(connection, rows, STATEMENTS, "No statement was counted yet.", as_json)

    run_on_database(work, data_dir, settings)


@app.command("locks")
def show_locks(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Who waits for whom. To end who is in the way, in psql: SELECT pg_terminate_backend(PROCESS)."""
    from allocator.upkeep import activity

    async def work(connection: "Connection") -> None:
        await _show(connection, _plain(await activity.waits(connection)), WAITS, "Nobody waits for anybody.", as_json)

    run_on_database(work, data_dir, settings)


@app.command("listeners")
def show_listeners(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Who listens for changes, which machines are not connected, and how full the queue of notifications is.

    PostgreSQL tells nobody who listens: these are programs of LabLink, and sessions whose last statement was LISTEN.
    """
    from allocator.cli import output
    from allocator.upkeep import activity

    async def work(connection: "Connection") -> None:
        found = await activity.listeners(connection)
        if as_json:
            others = {name: getattr(found, name) for name in ("over_hub", "unheard", "queue_usage")}
            return output.print_json({"sessions": _plain(found.sessions)} | others)
        await _show(connection, _plain(found.sessions), SESSIONS, "Nobody listens: lablink doctor", as_json)
        if found.over_hub:
            output.say(f"Machines that speak over the hub, and so do not listen here: {found.over_hub}.")
        for hostname in found.unheard:
            output.say(f"{hostname} is not connected. Its client's log says why; lablink vms show {hostname}")
        output.say(f"The queue of notifications is {found.queue_usage:.1%} full.")

    run_on_database(work, data_dir, settings)


async def _show(
    connection: "Connection", rows: list[dict[str, Any]], columns: dict[str, str], empty: str, as_json: bool
) -> None:
    from allocator.cli import admin, output

    output.show_rows(rows, columns, now=await admin.clock(connection), empty=empty, as_json=as_json)


def _tell_cuts(cut: "list[Cut]", limit: float, as_json: bool) -> None:
    from allocator.cli import output

    if as_json:
        return output.print_json([_row(each.session) | {"cut": each.done, "why_not": each.why_not} for each in cut])
    for each in cut:
        idle = output.duration(each.session.state_seconds)
        outcome = f"Ended {each.session.who}" if each.done else f"Did not end {each.session.who}: {each.why_not}"
        output.say(f"{outcome}; {each.session.state} for {idle}.")
    if not cut:
        output.say(f"Nobody has been idle for {output.duration(limit)}.")


def _plain(things: "list[Any]") -> list[dict[str, Any]]:
    return [_row(each) for each in things]


def _row(thing: "Session | Any") -> dict[str, Any]:
    from dataclasses import asdict

    return {key: value for key, value in asdict(thing).items() if key != "now"}


def _rounded(row: dict[str, Any]) -> dict[str, str]:
    return {key: f"{value:.3g}" for key, value in row.items() if key.endswith("seconds")}
