"""`lablink db hba`: a real server lets in who may come from where, and from elsewhere nobody without TLS."""

import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from allocator.bootstrap import DATABASE
from allocator.local.postgres import Server
from allocator.upkeep.hba import Networks, NotANetwork, pg_hba
from client.scram import verifier
from tests.support.certificates import Authority
from tests.support.database import PASSWORDS
from tests.support.doors import ELSEWHERE, from_elsewhere, server_with, version_with_tls
from tests.support.server import UNSAFE_AND_FAST, TestServer
from tests.support.up import run_lablink

MACHINE = "lablink_vm_test"
SECRETS = PASSWORDS | {MACHINE: "machine-password"}


@dataclass(frozen=True, slots=True)
class Doors:
    """A server, the port by which one comes to it from elsewhere, and how to trust its certificate."""

    server: Server
    port: int
    trust: ssl.SSLContext

    async def enter(self, role: str, *, elsewhere: bool, tls: bool, database: str = DATABASE) -> str:
        """Log in; returns the role that one is then."""
        connection = await asyncpg.connect(
            host="127.0.0.1",
            port=self.port if elsewhere else self.server.port,
            user=role,
            password=self.server.password if role == "postgres" else SECRETS[role],
            database=database,
            ssl=self.trust if tls else False,
        )
        try:
            return str(await connection.fetchval("SELECT current_user::text"))
        finally:
            await connection.close()


def trust_in(authority: Authority) -> ssl.SSLContext:
    """Trusts what the authority signed; names are not looked at, for one comes by another."""
    context = ssl.create_default_context(cafile=authority.file)
    context.check_hostname = False
    return context


async def doors_of(networks: Networks, directory: Path, version: int, *, tls: bool = True) -> AsyncIterator[Doors]:
    authority = Authority.under(directory)
    certificate = authority.issue("localhost") if tls else None
    async with server_with(pg_hba(networks), version, UNSAFE_AND_FAST, certificate) as own:
        owner = await asyncpg.connect(own.dsn("lablink", PASSWORDS["lablink"], DATABASE))
        made = f"CREATE ROLE {MACHINE} LOGIN PASSWORD '{verifier(SECRETS[MACHINE])}' IN ROLE lablink_client"
        await owner.execute(made)
        await owner.close()
        async with from_elsewhere(own.port) as port:
            yield Doors(own, port, trust_in(authority))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def doors(tmp_path_factory: pytest.TempPathFactory, server: TestServer) -> AsyncIterator[Doors]:
    """A server that machines, and nobody else, may come to from elsewhere; for all tests, which only look."""
    machines, directory = Networks(machines=[f"{ELSEWHERE}/32"]), tmp_path_factory.mktemp("doors")
    async for made in doors_of(machines, directory, version_with_tls(server.version)):
        yield made


@pytest_asyncio.fixture
async def open_doors(tmp_path: Path, server: TestServer) -> AsyncIterator[Doors]:
    """A server that every role but the superuser may come to from elsewhere."""
    there = [f"{ELSEWHERE}/32"]
    networks = Networks(there, there, there, there)
    async for made in doors_of(networks, tmp_path, version_with_tls(server.version)):
        yield made


@pytest_asyncio.fixture
async def doors_without_tls(tmp_path: Path, server: TestServer) -> AsyncIterator[Doors]:
    """A server of the version under test without a certificate: what names TLS in the file fits nobody."""
    there = [f"{ELSEWHERE}/32"]
    async for made in doors_of(Networks(there, there, there, there), tmp_path, server.version, tls=False):
        yield made


@pytest.mark.asyncio(loop_scope="module")
async def test_a_machine_comes_from_its_network_by_tls_with_its_password_and_not_otherwise(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await doors.enter(MACHINE, elsewhere=True, tls=True) == MACHINE
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="no encryption"):
        await doors.enter(MACHINE, elsewhere=True, tls=False)
    monkeypatch.setitem(SECRETS, MACHINE, "guessed")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await doors.enter(MACHINE, elsewhere=True, tls=True)


@pytest.mark.asyncio(loop_scope="module")
async def test_nobody_else_comes_from_the_machines_network(doors: Doors) -> None:
    for role in ("lablink", "lablink_app", "lablink_reader", "postgres"):
        for database in (DATABASE, "postgres"):
            with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
                await doors.enter(role, elsewhere=True, tls=True, database=database)


@pytest.mark.asyncio(loop_scope="module")
async def test_from_the_servers_own_machine_everybody_comes_to_the_database_and_to_no_other(doors: Doors) -> None:
    for role in (*SECRETS, "postgres"):
        database = "postgres" if role == "postgres" else DATABASE
        assert await doors.enter(role, elsewhere=False, tls=False, database=database) == role
    for role in (MACHINE, "lablink_app", "lablink_reader"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await doors.enter(role, elsewhere=False, tls=False, database="postgres")


async def test_each_role_comes_from_the_network_that_it_was_given(open_doors: Doors) -> None:
    for role in SECRETS:
        assert await open_doors.enter(role, elsewhere=True, tls=True) == role
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await open_doors.enter(role, elsewhere=True, tls=False)
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await open_doors.enter("postgres", elsewhere=True, tls=True)


async def test_a_server_without_a_certificate_lets_in_nobody_from_elsewhere(doors_without_tls: Doors) -> None:
    for role in (*SECRETS, "postgres"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await doors_without_tls.enter(role, elsewhere=True, tls=False)
        database = "postgres" if role == "postgres" else DATABASE
        assert await doors_without_tls.enter(role, elsewhere=False, tls=False, database=database) == role


@pytest.mark.asyncio(loop_scope="module")
async def test_the_server_finds_no_mistake_in_the_file(doors: Doors) -> None:
    superuser = await asyncpg.connect(doors.server.dsn())
    assert await superuser.fetch("SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL") == []
    await superuser.close()


@pytest.mark.parametrize("network", ["everywhere", "0.0.0.0/0", "::/0", "10.0.0.1/8", "10.0.0.0/33"])
def test_what_is_no_network_of_somebodys_is_refused(network: str) -> None:
    with pytest.raises(NotANetwork, match=network):
        pg_hba(Networks(machines=[network]))


def test_the_command_prints_the_file() -> None:
    done = run_lablink("db", "hba", "--cidr", "10.0.0.0/16", "--service", "10.0.1.5", "--set=database.name=other_db")
    assert done.returncode == 0
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["hostssl", "other_db", "+lablink_client", "10.0.0.0/16", "scram-sha-256"] in lines
    assert ["hostssl", "other_db", "lablink_app", "10.0.1.5/32", "scram-sha-256"] in lines
    assert lines[-1] == ["host", "all", "all", "all", "reject"]


def test_the_command_refuses_the_whole_internet() -> None:
    done = run_lablink("db", "hba", "--cidr", "0.0.0.0/0")
    assert done.returncode == 2
    assert "0.0.0.0/0 is the whole internet" in done.stderr
