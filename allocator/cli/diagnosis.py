"""What `lablink doctor` looks at, in turn: what comes later is only looked at when what it needs is there."""

import asyncio
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from allocator import logins
from allocator.cli import psql
from allocator.cli.database import settings_place
from allocator.config import ConfigError, Database, Settings, load_settings
from allocator.local.data_directory import made_by_up, nearest
from allocator.migrate import MigrationFailed
from allocator.upkeep import activity, verify
from allocator.upkeep.way_in import Obstacle, door, enter, in_words
from client.network import Connection

LEAST_FREE = 1 << 30
"""Bytes that a data directory's disk should have left."""

A_WEEK_AGO = "SELECT clock_timestamp() - interval '7 days'"
"""Since when the history is looked at; `lablink verify` reads all of it."""

OUT_OF_SERVICE = "SELECT array_agg(hostname ORDER BY hostname) FROM vms WHERE status = 'failed'"

READY_SECONDS = 3.0
LEFT_OPEN_SECONDS = 10.0
MANY = 8
"""Findings of `db verify` that are listed here; all of them are there."""


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that was looked at: well, not well, or (None) not looked at or only worth knowing."""

    subject: str
    well: bool | None
    what: str
    cure: str | None = None


Lines = AsyncIterator[Line]


async def diagnose(data_dir: Path | None, settings: Sequence[str]) -> list[Line]:
    """Everything that was looked at, in turn."""
    place = settings_place(data_dir, settings)
    try:
        known = load_settings(settings, place)
    except ConfigError as error:
        return [
            Line("settings", False, str(error), "Correct what was given: --data-dir, its file overrides, or --set.")
        ]
    where = f"those of {place}" if place else "those of conf/, as no .lablink is here or above"
    lines = [Line("settings", True, where if not settings else f"{where}, and --set")]
    database = known.database
    asked = (_secrets(database), _database(database, place), _pooler(database), _service(known, place))
    for part in (*asked, _machine(database, place)):
        lines += [line async for line in part]
    return lines


async def _secrets(database: Database) -> Lines:
    for login in (database.owner, database.service):
        try:
            await logins.resolve(login.password)
        except logins.SecretMissing as error:
            cure = "Put it there, or point database.*.password elsewhere."
            yield Line("secrets", False, f"the password of {login.user} is missing. {error}", cure)
        else:
            yield Line("secrets", True, f"the password of {login.user} is there")


async def _database(database: Database, place: Path | None) -> Lines:
    where = f"{database.host}:{database.port}"
    if obstacle := await door(database):
        started = obstacle.step == "port" and made_by_up(place)
        cure = f"Start it: lablink up --data-dir {place}" if started else obstacle.cure
        yield Line(obstacle.step, False, obstacle.what, cure)
        return
    yield Line("port", True, f"somebody answers on {where}")
    for login in (database.service, database.owner):
        entered = await enter(database, login)
        if isinstance(entered, Obstacle):
            if entered.step == "secrets":
                continue  # told already
            yield Line(entered.step, False, entered.what, entered.cure)
            continue
        yield Line("login", True, f"{login.user} is let in, {'over TLS' if database.tls == 'verify-full' else 'here'}")
        try:
            async for line in _as_owner(entered, database) if login is database.owner else _as_service(entered):
                yield line
        finally:
            entered.terminate()


async def _as_service(connection: Connection) -> Lines:
    try:
        free = await connection.fetchval("SELECT unassigned_vms_count()")
    except asyncpg.PostgresError as error:
        yield Line("permissions", False, f"the service may not do its work: {error}.", "lablink db migrate")
    else:
        yield Line("permissions", True, f"the service may do its work; free machines: {free}")


async def _as_owner(connection: Connection, database: Database) -> Lines:
    version = str(await connection.fetchval("SHOW server_version")).partition(" ")[0]
    yield Line("server", True, f"PostgreSQL {version}")
    try:
        dsn = await logins.dsn(database, database.owner)
        since = await connection.fetchval(A_WEEK_AGO)
        found = await verify.findings(dsn, database.all_connections, since=since)
    except (MigrationFailed, asyncpg.PostgresError) as error:
        yield Line("database", False, f"it could not be checked: {error}", "lablink db history")
        return
    wrong = [each for each in found if each.wrong]
    for each in wrong[:MANY]:
        yield Line(each.rule, False, each.what, each.cure)
    if wrong[MANY:]:
        yield Line("database", False, f"{len(wrong) - MANY} more things are not as they must be", "lablink db verify")
    if not wrong:
        yield Line("database", True, "schema, roles, settings, rules and the history of a week are as they must be")
    if not any(each.rule == "version" for each in wrong):
        async for line in _listeners(connection):
            yield line


async def _listeners(connection: Connection) -> Lines:
    found = await activity.listeners(connection)
    feeds = [each for each in found.sessions if each.application == "lablink feed"]
    if feeds:
        machines = f"machines: {len(found.sessions) - len(feeds)} at PostgreSQL, {found.over_hub} over the hub"
        yield Line("listeners", True, f"allocators: {len(feeds)}, {machines}")
    else:
        yield Line(
            "listeners", False, "no allocator listens: pages do not follow, and queues move slowly", "lablink serve"
        )
    if found.unheard:
        cure = "Start their clients; their logs say what keeps them away: journalctl -u lablink-client"
        yield Line("machines", False, f"{len(found.unheard)} not connected: {_few(found.unheard)}", cure)
    if out := await connection.fetchval(OUT_OF_SERVICE):
        cure = "lablink vms list says why, and what to do; if nothing else: lablink vms return HOSTNAME"
        yield Line("machines", None, f"{len(out)} out of service: {_few(out)}", cure)
    if found.queue_usage > 0.5:
        cure = "Somebody listens and does not read: lablink db kill-idle"
        yield Line("listeners", False, f"the queue of notifications is {found.queue_usage:.0%} full", cure)
    waiting = await activity.waits(connection)
    for wait in (each for each in waiting if each.seconds > 1):
        yield Line("locks", False, f"{wait.what}.", f"In psql: SELECT pg_terminate_backend({wait.blocker})")
    for each in await activity.left_open(connection, LEFT_OPEN_SECONDS):
        what = f"{each.who} has left a transaction open: nobody else can change or lend what it changed"
        yield Line(
            "locks", False, what, "COMMIT or ROLLBACK there, or: lablink db kill-idle --older 10s --in-transaction"
        )


async def _pooler(database: Database) -> Lines:
    if not (pooler := database.pooler):
        return
    entered = await door(pooler) or await enter(pooler, pooler.service)
    if isinstance(entered, Obstacle):
        cure = "Look at PgBouncer, its log, database.pooler_host and pooler_port: requests are answered with 503."
        yield Line("pooler", False, entered.what, cure)
        return
    try:
        await entered.execute("SELECT", timeout=READY_SECONDS)
    except (asyncpg.PostgresError, OSError, TimeoutError) as error:
        yield Line(
            "pooler",
            False,
            f"it lets us in and leads nowhere ({error or type(error).__name__})",
            "Read PgBouncer's log.",
        )
    else:
        yield Line("pooler", True, f"requests get through on {pooler.host}:{pooler.port}")
    finally:
        entered.terminate()


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:MANY]) + (" …" if names[MANY:] else "")


async def _service(known: Settings, place: Path | None) -> Lines:
    url = known.server.url
    status, said = await asyncio.to_thread(_ask, f"{url}/readyz")
    if status == 200:
        yield Line("service", True, f"{url} is ready")
        return
    what = f"{url} does not answer ({said})" if status is None else f"{url} is not ready: {said}"
    program = "up" if made_by_up(place) else "serve"
    start = f"Start it: lablink {program} --data-dir {place}" if place else "Start it: lablink serve"
    meant = place is not None or known.server.public_url is not None
    cure = start if status is None else "What is wrong above is likely to be the cause."
    yield Line("service", False if meant else None, what, cure)


def _ask(url: str) -> tuple[int | None, str]:
    """The status and what was said; None as status when nobody answered."""
    try:
        with urllib.request.urlopen(url, timeout=READY_SECONDS) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as error:
        return error.code, _detail(error)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return None, in_words(reason) if isinstance(reason, OSError) else str(reason)


def _detail(error: urllib.error.HTTPError) -> str:
    try:
        return str(json.load(error)["detail"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"status {error.code}"


async def _machine(database: Database, place: Path | None) -> Lines:
    directory = place or nearest() or Path.cwd()
    free = shutil.disk_usage(directory).free
    room = f"{free / (1 << 30):.1f} GB are free under {directory}"
    yield Line(
        "disk", free >= LEAST_FREE, room, None if free >= LEAST_FREE else "Make room: a full disk stops PostgreSQL."
    )
    there = psql.find(tls=database.tls == "verify-full")
    yield Line("psql", True if there else None, there or "not here", None if there else "apt install postgresql-client")
