"""Opens the service's connections to PostgreSQL: the password read at use, every wait limited, a dead peer noticed."""

from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import asyncpg

from allocator import logins
from allocator.config import Database
from client.network import Connection, KeptAlive, distrust

CONNECT_SECONDS = 5.0
COMMAND_SECONDS = 7.0
"""More than statement_timeout, so that it only speaks when the server cannot."""

LIMITS = {"statement_timeout": "5s", "lock_timeout": "2s", "idle_in_transaction_session_timeout": "10s"}

PROBES = {"tcp_keepalives_idle": "10", "tcp_keepalives_interval": "5", "tcp_keepalives_count": "3"}
"""By which the server notices within half a minute that our machine has lost power, and frees what we had locked."""

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    PooledConnection = PoolConnectionProxy[asyncpg.Record]
else:
    PooledConnection = asyncpg.Connection

Connect = Callable[..., Coroutine[Any, Any, Connection]]


def connector(database: Database, actor: str) -> Connect:
    """A function that opens a connection of the service's role, whose changes the history ascribes to `actor`.

    It raises what asyncpg does, OSError, and logins.SecretMissing. TLS is what config.Database allows: verify-full,
    or none on this machine.
    """
    settings = {"lablink.actor": actor, "application_name": f"lablink {actor}", **LIMITS, **PROBES}
    return _opener(database, settings, remembered_statements=100)


def pooled_connector(database: Database, actor: str) -> Connect:
    """As `connector`, by way of the pooler if there is one.

    In PgBouncer's transaction mode the next statement may run on another connection: none is prepared, and of what a
    session could set, only the application's name goes with it (actor() reads it). The limits are the role's own.
    """
    if pooler := database.pooler:
        return _opener(pooler, {"application_name": f"lablink {actor}"}, remembered_statements=0)
    return connector(database, actor)


def _opener(database: Database, settings: Mapping[str, str], remembered_statements: int) -> Connect:
    async def connect(*_of_pool: object, **_options_of_pool: object) -> Connection:
        return await asyncpg.connect(
            await logins.dsn(database, database.service),
            timeout=CONNECT_SECONDS,
            command_timeout=COMMAND_SECONDS,
            connection_class=KeptAlive,
            server_settings=dict(settings),
            statement_cache_size=remembered_statements,
        )

    return connect


def why_lost(error: Exception) -> str:
    """For the log: a sentence where somebody has to mend something, else only what kind of error it was."""
    return str(error) if isinstance(error, logins.SecretMissing) else distrust(error) or type(error).__name__
