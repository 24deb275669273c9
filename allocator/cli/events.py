"""`lablink events`: what happened, who did it and why; once, or as it happens."""

from typing import Annotated

import typer

from allocator.cli.options import DataDir, Json, Settings, follow_database, run_on_database


def show_events(
    following: Annotated[bool, typer.Option("--follow", "-f", help="Go on as things happen, until Ctrl-C.")] = False,
    after: Annotated[int | None, typer.Option("--after", metavar="ID", min=0, help="Only what came later.")] = None,
    vm: Annotated[str | None, typer.Option("--vm", metavar="HOSTNAME", help="Only about this machine.")] = None,
    lease: Annotated[str | None, typer.Option("--lease", metavar="LEASE", help="Only about this lease.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many of the last ones.")] = 50,
    as_json: Json = False,
    data_dir: DataDir = None,
    settings: Settings = None,
) -> None:
    """What happened to machines and leases, and who did it; oldest first.

    Each event has an id. To go on where an earlier call stopped, give the last id that it printed to --after. With
    --json every event is one line.

    Examples:

    - `lablink events --vm vm-1`
    - `lablink events --follow --json --after 1041`
    """
    from allocator.cli.history import History

    history = History(after=after, limit=limit, hostname=vm, lease=lease, as_json=as_json)
    if following:
        return follow_database(history.look, data_dir, settings)
    run_on_database(history.show, data_dir, settings)
