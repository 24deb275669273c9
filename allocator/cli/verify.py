"""`lablink verify`: whether the database keeps every promise, at this moment."""

import typer

from allocator.cli.options import DataDir, Json, Settings, run_on_database

COLUMNS = {"rule": "Rule", "what": "What is wrong"}


def verify(as_json: Json = False, data_dir: DataDir = None, settings: Settings = None) -> None:
    """Check the database: every invariant of the design, its version, its triggers and who may do what.

    Exits with 0 when all is well, and with 1 and a line for each thing that is not. Safe to run at any time.

    Example: `lablink verify && echo all is well`
    """
    from allocator.cli import admin, output
    from allocator.cli.database import versions
    from allocator.cli.schema import broken_facts

    missing = [step for step in versions(data_dir, settings or []) if not step.applied]
    broken = [{"rule": "version", "what": f"version {step.version} is missing: lablink db migrate"} for step in missing]

    async def work(connection: admin.Connection) -> None:
        broken.extend(await broken_facts(connection))
        broken.extend(await admin.broken_invariants(connection))
        now = await admin.clock(connection)
        output.show_rows(broken, COLUMNS, now=now, empty="Everything is as it must be.", as_json=as_json)

    run_on_database(work, data_dir, settings)
    if broken:
        raise typer.Exit(1)
