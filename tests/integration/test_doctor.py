"""`lablink doctor`: whatever stands between an admin and a working LabLink is named, with what to do about it."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from allocator import config
from allocator.local.postgres import Server
from allocator.upkeep.way_in import Obstacle, door, enter
from tests.support.admin import answer, lablink, place
from tests.support.certificates import Authority
from tests.support.database import PASSWORDS, Database
from tests.support.doors import server_with, version_with_tls
from tests.support.pooler import pooler_before
from tests.support.server import UNSAFE_AND_FAST, TestServer
from tests.support.service import ready, running_service, settings_for
from tests.support.up import free_port, run_lablink

HBA = "host all all all scram-sha-256"


def known(database: Database, **changes: object) -> config.Database:
    """Where a test's database is, with some of it changed."""
    parts = urlsplit(database.dsn("lablink"))
    settings = config.load_settings([f"database.port={parts.port}", f"database.name={database.name}"])
    return settings.database.model_copy(update=changes)


async def obstacle(database: config.Database) -> Obstacle:
    """What keeps the owner out."""
    found = await door(database) or await enter(database, database.owner)
    assert isinstance(found, Obstacle)
    return found


@pytest.fixture(autouse=True)
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABLINK_OWNER_PASSWORD", PASSWORDS["lablink"])
    monkeypatch.setenv("LABLINK_APP_PASSWORD", PASSWORDS["lablink_app"])


async def test_all_is_well_where_only_the_test_servers_own_settings_are_not(database: Database, tmp_path: Path) -> None:
    client = await (await database.vm("vm-1")).connect()
    await client.execute("LISTEN vm_updates")
    async with running_service(settings_for(database, tmp_path, "sweeps.period_seconds=60")) as service:
        await ready(service.service)
        lines = await answer(database, "doctor", f"--set=server.public_url={service.url}", code=1)
    bad = {line["subject"] for line in lines if line["well"] is False}
    assert bad == {"settings"}, lines
    assert {"secrets", "port", "login", "permissions", "server", "listeners", "service", "disk", "psql"} <= {
        line["subject"] for line in lines if line["well"]
    }


async def test_a_pooler_that_the_settings_name_is_looked_at(database: Database) -> None:
    async with pooler_before(database.server) as pooler:
        setting = f"--set=database.pooler_port={pooler.port}"
        through = await answer(database, "doctor", setting, code=1)
        await pooler.kill()
        away = await answer(database, "doctor", setting, code=1)

    (well,), (ill,) = ([line for line in lines if line["subject"] == "pooler"] for lines in (through, away))
    assert (well["well"], ill["well"]) == (True, False)
    assert f"Nobody listens on 127.0.0.1:{pooler.port}" in ill["what"]
    assert "database.pooler_host and pooler_port" in ill["cure"]


async def test_what_is_wrong_stands_beside_what_to_do(database: Database) -> None:
    await database.vm("vm-away")
    owner = await database.connect()
    await owner.execute("ALTER TABLE vms DISABLE TRIGGER vm_update_trigger")
    await owner.execute("REVOKE EXECUTE ON FUNCTION unassigned_vms_count FROM lablink_app")

    done = await lablink(database, "doctor")

    assert done.returncode == 1
    assert "✗ permissions: the service may not do its work: permission denied for function" in done.stdout
    assert "✗ schema: The trigger vm_update_trigger on public.vms is off." in done.stdout
    assert "→ ALTER TABLE public.vms ENABLE TRIGGER vm_update_trigger" in done.stdout


async def test_an_owner_who_is_not_the_owner_gets_a_sentence(database: Database) -> None:
    secret = PASSWORDS["lablink_app"]
    done = await lablink(database, "doctor", "--set=database.owner.user=lablink_app", OWNER=secret)
    assert done.returncode == 1
    assert "✗ database: it could not be checked: The version of the database cannot be read" in done.stdout


async def test_the_server_is_named_with_its_minor_version(database: Database) -> None:
    version = str(await (await database.connect()).fetchval("SHOW server_version")).split()[0]
    done = await lablink(database, "doctor")
    assert f"✓ server: PostgreSQL {version}\n" in done.stdout


async def test_a_secret_that_is_missing_is_told_once(database: Database) -> None:
    lost = "--set=database.service.password=env:NOT_SET"
    done = await asyncio.to_thread(run_lablink, "doctor", *place(database.dsn()), lost, OWNER=PASSWORDS["lablink"])
    assert done.stdout.count("✗ secrets: the password of lablink_app is missing.") == 1
    assert done.stdout.count("NOT_SET") == 1


async def test_nobody_listens_is_told(database: Database) -> None:
    await database.vm("vm-away")
    done = await lablink(database, "doctor")
    assert "✗ listeners: no allocator listens" in done.stdout
    assert "✗ machines: 1 not connected: vm-away" in done.stdout


async def test_machines_that_are_out_of_service_are_named(database: Database) -> None:
    owner = await database.connect()
    for name in ("vm-2", "vm-1"):
        await database.vm(name)
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'disk'")
    done = await lablink(database, "doctor")
    assert "machines: 2 out of service: vm-1, vm-2\n    → lablink vms list says why" in done.stdout


async def test_a_database_without_tables_is_told_to_migrate(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public AUTHORIZATION pg_database_owner")
    done = await lablink(database, "doctor")
    assert done.returncode == 1
    assert "✗ version: The database lacks version 1" in done.stdout
    assert "→ lablink db migrate" in done.stdout


@pytest.mark.parametrize(
    ("changes", "step", "words"),
    [
        ({"host": "nowhere.invalid"}, "name", "leads nowhere"),
        ({"port": 1}, "port", "Nobody listens on 127.0.0.1:1"),
        ({"host": "/nowhere"}, "port", "Nobody listens on /nowhere"),
        ({"name": "no_such_db"}, "database", "There is no database no_such_db."),
        ({"owner": config.Login(user="lablink", password="env:WRONG")}, "password", "The password of lablink is not"),
        ({"owner": config.Login(user="nobody", password="env:WRONG")}, "password", "The password of nobody is not"),
        ({"owner": config.Login(user="lablink", password="env:NOT_SET")}, "secrets", "NOT_SET is not set"),
    ],
)
async def test_each_obstacle_has_its_sentence(
    database: Database, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object], step: str, words: str
) -> None:
    monkeypatch.setenv("WRONG", "guessed")
    found = await obstacle(known(database, **changes))
    assert (found.step, words in found.what) == (step, True), found
    assert "guessed" not in found.what
    assert found.cure


async def test_a_role_that_may_not_enter_is_told_to_deploy(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute(f"REVOKE CONNECT ON DATABASE {database.name} FROM lablink_app")
    place = known(database)
    found = await enter(place, place.service)
    assert isinstance(found, Obstacle)
    assert found.cure == "lablink db deploy"


async def test_something_else_that_listens_is_not_taken_for_a_database(database: Database) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as other:
        found = await obstacle(known(database, port=other.sockets[0].getsockname()[1]))
    assert found.step == "port"


@asynccontextmanager
async def tls_server(directory: Path, version: int, host: str, lasts: timedelta) -> AsyncIterator[tuple[Server, Path]]:
    """A server whose certificate is for `host`, and the file of its authority."""
    authority = Authority.under(directory)
    async with server_with(HBA, version_with_tls(version), UNSAFE_AND_FAST, authority.issue(host, lasts)) as own:
        yield own, authority.file


def over_tls(port: int, authority: Path) -> config.Database:
    overrides = ["database=server", "database.host=localhost", f"database.port={port}", f"database.ca_file={authority}"]
    return config.load_settings(overrides).database


@pytest.mark.parametrize(
    ("host", "lasts", "words", "cure"),
    [
        ("localhost", timedelta(hours=-1), "expired", "Renew"),
        ("db.example.org", timedelta(hours=1), "not valid for 'localhost'", "Use the name that is in the certificate"),
    ],
)
async def test_a_certificate_that_is_not_right_is_named(
    tmp_path: Path, server: TestServer, host: str, lasts: timedelta, words: str, cure: str
) -> None:
    async with tls_server(tmp_path, server.version, host, lasts) as (own, authority):
        found = await obstacle(over_tls(own.port, authority))
    assert found.step == "tls"
    assert words in found.what
    assert cure in found.cure


async def test_a_good_certificate_lets_us_in_and_another_authority_does_not(tmp_path: Path, server: TestServer) -> None:
    other = Authority.under(tmp_path, "other").file
    async with tls_server(tmp_path, server.version, "localhost", timedelta(hours=1)) as (own, authority):
        place = over_tls(own.port, authority)
        entered = await enter(place, place.owner)
        found = await obstacle(over_tls(own.port, other))
    assert isinstance(entered, asyncpg.Connection)
    entered.terminate()
    assert found.step == "tls"
    assert "Give database.ca_file the authority" in found.cure


async def test_a_server_that_lost_its_tls_is_not_trusted(database: Database, tmp_path: Path) -> None:
    authority = Authority.under(tmp_path).file
    found = await obstacle(over_tls(urlsplit(database.dsn("lablink")).port or 0, authority))
    assert found.step == "tls"
    assert "The server does not do TLS" in found.what


def test_settings_that_are_wrong_are_told_first() -> None:
    done = run_lablink("doctor", "--set=database.port=high")
    assert done.returncode == 1
    assert done.stdout.startswith("✗ settings: database.port")
    assert "→ Correct what was given: --data-dir, its file overrides, or --set." in done.stdout


def test_a_service_that_is_not_there_is_told() -> None:
    port = free_port()
    done = run_lablink("doctor", f"--set=server.public_url=http://127.0.0.1:{port}")
    assert f"✗ service: http://127.0.0.1:{port} does not answer" in done.stdout
    assert "→ Start it: lablink serve" in done.stdout


def test_a_name_that_leads_nowhere_really_does() -> None:
    with pytest.raises(socket.gaierror):
        socket.getaddrinfo("nowhere.invalid", 1)
