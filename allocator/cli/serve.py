"""`lablink serve`: the allocator."""

from typing import Annotated

import typer

from allocator.cli.options import DataDir

STOP_SECONDS = 5
"""How long open requests may take to end when the allocator is asked to stop."""


def serve(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings that differ from conf/, for example server.port=8123."),
    ] = None,
    data_dir: DataDir = None,
    fd: Annotated[
        int | None, typer.Option("--fd", metavar="N", min=3, help="Accept on this open socket, not on host and port.")
    ] = None,
) -> None:
    """Run the allocator: the web page, the HTTP API and the sweeps.

    PostgreSQL may come later or go away for a while: requests are answered 503 meanwhile. Run as many as you like on
    one database. Secrets are never settings; settings say where they are (env:NAME, file:PATH, aws:NAME).

    Examples:

    - `lablink serve --data-dir .lablink`
    - `lablink serve database=server database.host=db.example.org database.ca_file=rds.pem server.host=0.0.0.0`
    """
    import uvicorn

    from allocator.app import create_app
    from allocator.cli.database import settings_place
    from allocator.config import load_settings

    settings = load_settings(overrides or [], settings_place(data_dir, overrides or []))
    uvicorn.run(
        create_app(settings),
        host=settings.server.host,
        port=settings.server.port,
        fd=fd,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
