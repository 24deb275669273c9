"""What PostgreSQL refuses with, in our own words."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from allocator import errors
from allocator.connection import why_lost
from allocator.logins import SecretMissing

SQLSTATES: dict[str, type[errors.ServiceError]] = {
    "LL002": errors.IllegalChange,
    "LL003": errors.IllegalChange,
    "LL004": errors.NoSuchLease,
    "LL005": errors.NoSuchPool,
    "LL006": errors.JoinRefused,
    "LL007": errors.KeyReused,
    "LL008": errors.NothingAsked,
    "LL009": errors.CommandNotAccepted,
    "LL011": errors.Outdated,
    "LL012": errors.NotLonger,
    "LL013": errors.BudgetSpent,
    "LL014": errors.MembersOnly,
    "LL015": errors.JoinCodeRefused,
    "08": errors.DatabaseUnavailable,  # the connection broke
    "28": errors.DatabaseUnavailable,  # it does not let us in
    "3D000": errors.DatabaseUnavailable,  # it is not there (any more, yet)
    "57P": errors.DatabaseUnavailable,  # it stops or starts
    "25006": errors.DatabaseUnavailable,  # it became a standby
    "53": errors.Busy,  # it has no connection left, or no room
    "40": errors.Conflict,
    "55P03": errors.Busy,
    "57014": errors.Busy,
    "42P01": errors.NotMigrated,
    "42883": errors.NotMigrated,
    "42703": errors.NotMigrated,
    "42501": errors.NotMigrated,
}
"""SQLSTATE → error; the longest beginning that fits counts, and what fits none is DatabaseFailed."""

_LOST = (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError, SecretMissing)


@contextmanager
def translated() -> Iterator[None]:
    """Whatever the database does inside the block comes out as a ServiceError, without the row that it may quote."""
    try:
        yield
    except asyncpg.PostgresError as error:
        raise _translation(error) from None
    except _LOST as error:
        raise errors.DatabaseUnavailable(why=why_lost(error)) from error


def kind_of(state: str) -> type[errors.ServiceError]:
    """The error that a SQLSTATE is to us."""
    return next((SQLSTATES[state[:n]] for n in (5, 3, 2) if state[:n] in SQLSTATES), errors.DatabaseFailed)


def _translation(error: asyncpg.PostgresError) -> errors.ServiceError:
    state = str(getattr(error, "sqlstate", None) or "")
    kind = kind_of(state)
    if kind in (errors.JoinRefused, errors.NotLonger):  # why is for a person, and in words of ours
        said = error.as_dict()
        words = f"{said['message']}. {said.get('hint', '')}".strip()
        return kind(words[0].upper() + words[1:], why=f"SQLSTATE {state}")
    if kind is errors.BudgetSpent:  # the hint says how much is spent
        return kind(error.as_dict().get("hint"), why=f"SQLSTATE {state}")
    return kind(why=f"SQLSTATE {state} {type(error).__name__}")
