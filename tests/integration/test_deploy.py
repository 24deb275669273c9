"""A server that has nothing of ours becomes an installation, by the commands that the README gives."""

import asyncio
import os
import re
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from allocator.local.postgres import Server
from tests.docs.markdown import ROOT
from tests.support.server import TestServer, fresh_server
from tests.support.up import LABLINK, free_port, run_lablink

ELSEWHERE = "database=server --set database.host=db.example.org --set database.ca_file=ca.pem"
LATEST = max(int(file.name[1:].partition("__")[0]) for file in (ROOT / "allocator/sql").glob("V*.sql"))
THERE = f"The database is at version {LATEST}.\n"
BASH_SECONDS = 200
OWN = {"LABLINK_OWNER_PASSWORD": "owner's", "LABLINK_APP_PASSWORD": "app's"}


@pytest_asyncio.fixture
async def empty(tmp_path: Path, server: TestServer) -> AsyncIterator[Server]:
    """A server of its own, of the version that the session tests."""
    async with fresh_server(tmp_path, server.version) as own:
        yield own


def readme() -> list[str]:
    """The README's commands for the one who runs it."""
    section = (ROOT / "README.md").read_text().partition("### As the one who runs it\n")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    return re.findall(r"^\$ (.*)$", block, re.MULTILINE)


async def bash(*lines: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run lines as one types them."""
    path = f"{LABLINK.parent}:{os.environ['PATH']}"
    return await asyncio.to_thread(
        subprocess.run,
        ["bash", "-euc", "\n".join(lines)],
        capture_output=True,
        text=True,
        timeout=BASH_SECONDS,
        env={**os.environ, **OWN, "PATH": path, "NO_COLOR": "1", **environment},
    )


@pytest.mark.timeout(450)
async def test_the_readme_leads_from_an_empty_server_to_an_allocator_that_is_ready(empty: Server) -> None:
    install, place, deploy, serve, migrate = readme()
    port = free_port()
    assert install.startswith("pip install") and ELSEWHERE in place
    here = place.replace(ELSEWHERE, f"database.port={empty.port} --set server.port={port}")
    ready = f"curl -fs --retry 60 --retry-delay 1 --retry-all-errors localhost:{port}/readyz"

    made = await bash(here, deploy, deploy, SUPERUSER_DSN=empty.dsn())
    ran = await bash(here, migrate, serve.partition("#")[0] + "&", "trap 'kill $!; wait' EXIT", ready)

    assert made.stdout == THERE * 2, made.stderr
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith(THERE)


async def test_what_a_managed_service_refuses_is_printed_and_not_needed(empty: Server) -> None:
    await bash('psql "$DSN" -c "CREATE ROLE master LOGIN CREATEROLE CREATEDB PASSWORD \'m\'"', DSN=empty.dsn())
    master = empty.dsn("master", "m")

    done = await bash(f"lablink db deploy --superuser env:MASTER --set database.port={empty.port}", MASTER=master)

    assert done.returncode == 0, done.stderr
    refused = "not needed: GRANT pg_monitor TO lablink\n" in done.stdout
    assert refused == (empty.version >= 16)  # until then CREATEROLE could grant any role
    assert done.stdout.endswith(THERE)


@pytest.mark.parametrize(
    "given",
    [
        "postgresql://postgres:hidden@127.0.0.1/postgres",
        "env:ELSEWHERE",
        "env:NO_URL",
        "env:UNQUOTED",
        "env:NOT_SET_AT_ALL",
    ],
)
def test_a_connection_string_that_will_not_do_is_told_without_its_password(given: str) -> None:
    strings = {
        "ELSEWHERE": "postgresql://postgres:hidden@db.example.org/postgres",
        "NO_URL": "host=127.0.0.1 user=postgres password=hidden",
        "UNQUOTED": "postgresql://postgres:hidden/too@127.0.0.1/postgres",
    }

    done = run_lablink("db", "deploy", "--superuser", given, **OWN, **strings)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "hidden" not in done.stdout + done.stderr


def test_serve_takes_settings_as_every_command_does_and_as_it_used_to() -> None:
    for spelled in (["--set=server.prot=1"], ["server.prot=1"]):
        done = run_lablink("serve", *spelled)
        assert done.returncode == 2
        assert "server.prot" in done.stderr
