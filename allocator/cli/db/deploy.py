"""What `lablink db deploy` does: roles, database and tables on a server that may have none of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from allocator import bootstrap, migrate
from allocator.cli.database import settings_place
from allocator.cli.db.superusers import superuser_dsn
from allocator.cli.failures import Misused, explained
from allocator.cli.waiting import say_for_whom
from allocator.config import Database, load_settings
from allocator.logins import dsn, resolve

OTHER_NAMES = f"The roles that are made are {bootstrap.OWNER} and {bootstrap.SERVICE}: leave database.*.user as it is."


@dataclass(frozen=True, slots=True)
class Deployed:
    """The version that the database has now, and the statements that the server refused and that are not needed."""

    version: str | None
    refused: list[str]


async def deploy(superuser: str, data_dir: Path | None, settings: Sequence[str]) -> Deployed:
    """Make what is missing, and the database of the newest version. Raises CommandFailed, SecretMissing.

    `superuser` points to the connection string of a superuser or of a managed service's master user.
    """
    database = load_settings(settings, settings_place(data_dir, settings)).database
    above, owner = await superuser_dsn(database, superuser), await dsn(database, database.owner)
    given = await passwords(database)
    with explained("Check database.host and database.port."):
        refused = await bootstrap.prepare(above, given, database.name)
        return Deployed(await migrate.upgrade(owner, say_for_whom), refused)


async def passwords(database: Database) -> dict[str, str]:
    """The passwords of the roles that are made, by their names. Raises SecretMissing, and Misused for other names."""
    found = {login.user: await resolve(login.password) for login in (database.owner, database.service)}
    if set(found) != {bootstrap.OWNER, bootstrap.SERVICE}:
        raise Misused(OTHER_NAMES)
    return found
