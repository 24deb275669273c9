"""The service and machines speak TLS with a database of the right name and authority, and with no other."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import asyncpg
import pytest
import pytest_asyncio

from allocator.cli.database import connected
from allocator.cli.failures import Unreachable as NoAnswer
from allocator.config import load_settings
from allocator.connection import connector
from allocator.errors import DatabaseUnavailable
from allocator.local.postgres import running_server
from allocator.sqlstates import translated
from client.direct import DirectTransport
from client.protocol import Memory
from client.settings import DatabaseLogin
from client.transport import Unreachable
from tests.support.certificates import Authority
from tests.support.database import PASSWORDS, Database, Vm, cloned_database, migrated_template
from tests.support.doors import version_with_tls
from tests.support.server import UNSAFE_AND_FAST, TestServer

NOTHING = Memory(0, None)
SECURED = "SELECT every(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = $1"
WRONG = {
    "authority": "cannot be trusted (unable to get local issuer certificate)",
    "name": "cannot be trusted (IP address mismatch, certificate is not valid for '127.0.0.1')",
    "no TLS": "offers no TLS",
}
"""What is wrong with a server, and what is said about it."""


@dataclass(frozen=True, slots=True)
class Protected:
    """A database on a server that speaks TLS and is named `localhost`, one machine of it, and who signed its name."""

    port: int
    database: Database
    vm: Vm
    authority: Authority


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def protected(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Protected]:
    directory, version = tmp_path_factory.mktemp("tls"), version_with_tls()
    authority = Authority.under(directory)
    async with running_server(directory / "server", version=version, settings=UNSAFE_AND_FAST):
        certify(directory / "server" / "postgres", authority)
    settings = {**UNSAFE_AND_FAST, "ssl": "on"}
    async with running_server(directory / "server", version=version, settings=settings) as own:
        server = TestServer(own.dsn(), own.version)
        async with migrated_template(server) as template, cloned_database(server, template, "lablink_tls") as database:
            yield Protected(own.port, database, await database.vm(), authority)


def certify(data: Path, authority: Authority) -> None:
    """Give the server a certificate for its name, where PostgreSQL looks for it."""
    owner = data.stat()
    for name, content in zip(("server.crt", "server.key"), authority.issue("localhost"), strict=True):
        (data / name).write_bytes(content)
        (data / name).chmod(0o600)
        os.chown(data / name, owner.st_uid, owner.st_gid)


def overrides(host: str, port: int, name: str, authority: Authority) -> list[str]:
    """Settings that lead to the database, whose passwords are in the environment."""
    where = (f"database.host={host}", f"database.port={port}", f"database.name={name}")
    return ["database=server", *where, f"database.ca_file='{authority.file}'"]


def address_for(host: str, port: int, vm: Vm, authority: Authority) -> DatabaseLogin:
    """What enrolment would have told the machine."""
    parts = urlsplit(vm.dsn)
    user, password = unquote(parts.username or ""), unquote(parts.password or "")
    return DatabaseLogin(host, port, parts.path[1:], user, "verify-full", authority.file.read_text(), password=password)


@pytest.fixture(autouse=True)
def _passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABLINK_APP_PASSWORD", PASSWORDS["lablink_app"])
    monkeypatch.setenv("LABLINK_OWNER_PASSWORD", PASSWORDS["lablink"])


async def test_the_service_and_a_machine_speak_tls_with_a_server_of_the_right_name_and_authority(
    protected: Protected,
) -> None:
    at = ("localhost", protected.port)
    settings = load_settings(overrides(*at, protected.database.name, protected.authority))

    service = await connector(settings.database, "test")()
    async with DirectTransport(address_for(*at, protected.vm, protected.authority)) as machine:
        orders = await machine.hello(NOTHING)
        secured = await service.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        superuser = await asyncpg.connect(protected.database.dsn("postgres"))
        machines = await superuser.fetchval(SECURED, protected.vm.role)
    for connection in (service, superuser):
        await connection.close()

    assert orders.vm_id == protected.vm.id
    assert (secured, machines) == (True, True)


@pytest.mark.parametrize("wrong", WRONG)
async def test_any_other_server_is_refused_in_a_sentence(
    wrong: str, protected: Protected, database: Database, tmp_path: Path
) -> None:
    host = "127.0.0.1" if wrong == "name" else "localhost"
    port = urlsplit(database.dsn()).port or 0 if wrong == "no TLS" else protected.port
    authority = Authority.under(tmp_path, "another") if wrong == "authority" else protected.authority
    given = overrides(host, port, protected.database.name, authority)

    with pytest.raises(DatabaseUnavailable) as unavailable, translated():
        await connector(load_settings(given).database, "test")()
    with pytest.raises(NoAnswer) as no_answer:
        async with connected(None, given):
            pass
    async with DirectTransport(address_for(host, port, protected.vm, authority)) as machine:
        with pytest.raises(Unreachable) as unreachable:
            await machine.hello(NOTHING)

    for said in (unavailable.value.why, str(no_answer.value), str(unreachable.value)):
        assert WRONG[wrong] in (said or "")
