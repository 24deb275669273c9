"""psql: where it is, and how a command becomes it."""

import os
import shutil
from collections.abc import Sequence
from typing import NoReturn

from allocator.cli.failures import CommandFailed
from allocator.local import UpFailed
from allocator.local.postgres_binaries import find_binaries
from allocator.upkeep.programs import environment, over_tls

NO_PSQL = """There is no psql on this machine. Install it (Debian, Ubuntu: apt install postgresql-client; macOS: brew \
install libpq), or give `lablink db url` to any other PostgreSQL program."""


def become(url: str, arguments: Sequence[str]) -> NoReturn:
    """Replace this process by psql, connected to `url`; the password goes where `ps` does not see it."""
    psql = find(tls=over_tls(url))
    if psql is None:
        raise CommandFailed(NO_PSQL)
    quiet = "--variable=SHOW_CONTEXT=never"  # a refusal is two lines: what was refused, and the hint
    os.execvpe(psql, [psql, quiet, *arguments], os.environ | environment(url) | {"PGAPPNAME": "lablink db shell"})


def find(*, tls: bool) -> str | None:
    """The psql to run, if there is one; the `[local]` wheel's cannot speak TLS."""
    return (None if tls else _psql_of_server()) or shutil.which("psql")


def _psql_of_server() -> str | None:
    """The psql beside the server that `lablink up` runs, if it has one: as new as the newest database here."""
    try:
        psql = find_binaries().directory / "psql"
    except UpFailed:
        return None
    return str(psql) if psql.exists() else None
