"""What `lablink db verify` says of the server around the database: its doors, its TLS, its superuser."""

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest_asyncio

from allocator import bootstrap, migrate
from allocator.local.postgres import Server, running_server
from allocator.upkeep import verify
from tests.support.database import PASSWORDS
from tests.support.doors import server_with
from tests.support.server import UNSAFE_AND_FAST, TestServer


@pytest_asyncio.fixture
async def durable(tmp_path: Path, server: TestServer) -> AsyncIterator[Server]:
    """A server with PostgreSQL's own settings, open to the network and without TLS, and a database on it."""
    settings = {"listen_addresses": "*"}
    async with running_server(tmp_path, version=server.version, settings=settings) as own:
        await bootstrap.prepare(own.dsn(), PASSWORDS)
        await migrate.upgrade(own.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE))
        yield own


async def test_a_server_that_is_open_and_has_no_tls_is_all_that_is_wrong_here(durable: Server) -> None:
    findings = await verify.findings(durable.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE))
    assert [each.what for each in findings] == ["The server accepts connections from elsewhere (*) and has no TLS."]


async def test_a_server_that_listens_here_only_needs_no_tls(tmp_path: Path, server: TestServer) -> None:
    async with running_server(tmp_path, version=server.version) as own:
        await bootstrap.prepare(own.dsn(), PASSWORDS)
        dsn = own.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE)
        await migrate.upgrade(dsn)
        assert await verify.findings(dsn) == []


async def test_a_superuser_also_sees_what_pg_hba_conf_lets_in(server: TestServer) -> None:
    rules = "host all all 127.0.0.1/32 scram-sha-256\nhost all all 0.0.0.0/0 md5\n"
    async with server_with(rules, server.version, UNSAFE_AND_FAST) as own:
        await bootstrap.prepare(own.dsn(), PASSWORDS)
        await migrate.upgrade(own.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE))
        findings = await verify.findings(urlsplit(own.dsn())._replace(path=f"/{bootstrap.DATABASE}").geturl())
    assert "Line 2 of pg_hba.conf lets in host 0.0.0.0 by md5." in [each.what for each in findings]


async def test_an_owner_who_is_the_servers_first_superuser_is_told_of_and_does_no_wrong(
    tmp_path: Path, server: TestServer
) -> None:
    async with running_server(tmp_path, version=server.version) as own:
        first = await asyncpg.connect(own.dsn())
        await first.execute("CREATE ROLE another SUPERUSER LOGIN PASSWORD 'another'")
        await first.close()
        another = own.dsn("another", "another")
        renaming = await asyncpg.connect(another)
        await renaming.execute("ALTER ROLE postgres RENAME TO lablink")
        await renaming.close()
        await bootstrap.prepare(another, PASSWORDS)
        dsn = own.dsn("lablink", PASSWORDS["lablink"], bootstrap.DATABASE)
        await migrate.upgrade(dsn)
        (finding,) = await verify.findings(dsn)
    assert not finding.wrong
    assert "The role lablink is the server's first superuser" in finding.what
