"""Secrets are fetched from where the configuration points, when they are needed."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import boto3
import pytest
from moto import mock_aws

from allocator.config import load_settings
from allocator.logins import SecretMissing, dsn, resolve, url
from allocator.upkeep import programs
from tests.support.certificates import Authority
from tests.support.database import PASSWORDS, Database


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    with mock_aws():
        yield


async def test_a_secret_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "from the environment")
    assert await resolve("env:MY_PASSWORD") == "from the environment"


async def test_a_secret_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from a file\n")
    assert await resolve(f"file:{tmp_path / 'password'}") == "from a file"


async def test_a_secret_comes_from_secrets_manager_whole_or_by_key(aws: None) -> None:
    manager = boto3.client("secretsmanager")
    arn = manager.create_secret(Name="lablink/app", SecretString=json.dumps({"password": "from AWS"}))["ARN"]
    manager.create_secret(Name="lablink/plain", SecretString="plainly from AWS")
    assert await resolve("aws:lablink/plain") == "plainly from AWS"
    assert await resolve("aws:lablink/app#password") == "from AWS"
    assert await resolve(f"aws:{arn}#password") == "from AWS"


@pytest.mark.parametrize(
    ("reference", "sentence"),
    [
        ("env:NOT_SET_ANYWHERE", "The environment variable NOT_SET_ANYWHERE is not set"),
        ("file:/nowhere/password", r"/nowhere/password cannot be read \(No such file or directory\)"),
        ("file:/dev/null", "/dev/null is empty"),
        ("aws:nothing", "Secrets Manager does not give the secret nothing"),
        ("aws:plain#password", "The secret plain is not JSON with a key 'password'"),
    ],
)
async def test_a_secret_that_is_missing_is_named_but_never_shown(aws: None, reference: str, sentence: str) -> None:
    boto3.client("secretsmanager").create_secret(Name="plain", SecretString="hunter2")
    with pytest.raises(SecretMissing, match=sentence) as missing:
        await resolve(reference)
    assert "hunter2" not in str(missing.value)


async def test_the_service_connects_with_what_the_configuration_says(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABLINK_APP_PASSWORD", PASSWORDS["lablink_app"])
    where = urlsplit(database.dsn())
    overrides = [f"database.host={where.hostname}", f"database.port={where.port}", f"database.name={database.name}"]
    settings = load_settings(overrides)
    connection = await asyncpg.connect(await dsn(settings.database, settings.database.service))
    assert await connection.fetchval("SELECT current_user::text") == "lablink_app"
    await connection.close()


async def test_a_database_elsewhere_is_reached_with_its_certificate_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca = Authority.under(tmp_path).file
    monkeypatch.setenv("LABLINK_APP_PASSWORD", "p@ss/word?")
    overrides = ["database=server", "database.host=db.example.org", f"database.ca_file={ca}"]
    database = load_settings(overrides).database
    url = await dsn(database, database.service)
    assert url.startswith(
        "postgresql://lablink_app:p%40ss%2Fword%3F@db.example.org:5432/lablink_db?sslmode=verify-full"
    )


async def test_a_database_may_be_a_sockets_directory_and_port(tmp_path: Path) -> None:
    came = asyncio.Event()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        writer.close()

    database = load_settings([f"database.host={tmp_path}", "database.port=6543"]).database
    async with await asyncio.start_unix_server(hang_up, tmp_path / ".s.PGSQL.6543"):
        with pytest.raises((ConnectionError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError)):
            await asyncpg.connect(url(database, "lablink", ""), timeout=10)

    assert came.is_set()
    assert programs.environment(url(database, "lablink", ""))["PGPORT"] == "6543"
