"""How a command can fail: each failure is one sentence for standard error and an exit code.

CommandFailed      1   it was refused, or did not work
├── Misused        2   the command line or the configuration is wrong
├── Unreachable    3   the database does not answer
└── NotThere       4   there is no such machine, lease …
"""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from client.network import distrust


class CommandFailed(Exception):
    """The command did not do what was asked; the message says why and what to do."""

    exit_code = 1


class Misused(CommandFailed):
    """The command line or the configuration is wrong."""

    exit_code = 2


class Unreachable(CommandFailed):
    """The database does not answer, or does not let us in."""

    exit_code = 3


class NotThere(CommandFailed):
    """There is no such thing."""

    exit_code = 4


NO_SUCH_THING = ("LL002", "LL004", "LL005")
"""SQLSTATEs of our functions that mean that what was named is not there."""

DOWN = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.CannotConnectNowError)
REFUSED = {
    asyncpg.InvalidCatalogNameError: "Make it: lablink db deploy. If it was moved, say where to: --set database.host=…",
    asyncpg.InvalidAuthorizationSpecificationError: "Check user and password; on a server that LabLink does not know "
    "yet: lablink db deploy",
}
NOT_MIGRATED = (asyncpg.UndefinedTableError, asyncpg.UndefinedFunctionError, asyncpg.UndefinedColumnError)


@contextmanager
def explained(advice: str) -> Iterator[None]:
    """What goes wrong with the database inside the block, in words and with the right exit code.

    `advice` is what to do when the database does not answer.
    """
    try:
        yield
    except BrokenPipeError:  # of standard output; asyncpg's connections do not raise it
        raise
    except NOT_MIGRATED as error:
        raise CommandFailed(
            f"The database is not at this version of LabLink ({error}). Migrate it: lablink db migrate"
        ) from error
    except tuple(REFUSED) as error:
        cure = next(cure for kind, cure in REFUSED.items() if isinstance(error, kind))
        raise Unreachable(f"The database does not let us in: {str(error).rstrip('.')}. {cure}") from error
    except DOWN as error:
        raise Unreachable(distrust(error) or f"The database does not answer ({_why(error)}). {advice}") from error
    except asyncpg.PostgresError as error:
        kind = NotThere if error.sqlstate in NO_SUCH_THING else CommandFailed
        raise kind(sentence(error)) from error


def sentence(error: asyncpg.PostgresError) -> str:
    """What the database said, with its hint, as sentences."""
    said = str(error.args[0] if error.args else error).strip()
    hint = getattr(error, "hint", None)
    return f"{said[:1].upper()}{said[1:].rstrip('.')}." + (f" {hint}" if hint else "")


def _why(error: BaseException) -> str:
    """What went wrong on the way, as words in brackets."""
    from allocator.upkeep.way_in import in_words

    if isinstance(error, TimeoutError):
        return "not in time"
    return in_words(error) if isinstance(error, OSError) else str(error).strip().rstrip(".") or type(error).__name__


EXPECTED = {
    "allocator.conf_files.ConfigError": Misused.exit_code,
    "allocator.fleet.refusals.NoFleet": Misused.exit_code,
    "allocator.logins.SecretMissing": Misused.exit_code,
    "allocator.local.UpFailed": CommandFailed.exit_code,
    "allocator.migrations.MigrationFailed": CommandFailed.exit_code,
    "allocator.operations.OperationRefused": CommandFailed.exit_code,
    "allocator.upkeep.UpkeepFailed": CommandFailed.exit_code,
}
"""Failures of the parts that commands are made of, by name: importing them all would make every command slow."""


def exit_code_of(error: Exception) -> int | None:
    """What the process ends with after `error`; None for one that nobody expected."""
    if isinstance(error, CommandFailed):
        return error.exit_code
    return EXPECTED.get(f"{type(error).__module__}.{type(error).__qualname__}")
