"""How `lablink serve` starts: with which settings, on which socket, and when it does not."""

import os
import socket
import subprocess
from pathlib import Path

import pytest

from allocator.cli.failures import CommandFailed
from allocator.cli.serve import listener_of, settings_of
from allocator.config import load_settings
from tests.support.up import LABLINK, free_port, until


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The .lablink of the directory that we are in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "password").write_text("secret")
    data_dir = tmp_path / ".lablink"
    data_dir.mkdir()
    kept = (
        "pool=local",
        "server.port=8123",
        "database.port=6543",
        f"database.service.password=file:{tmp_path}/password",
    )
    (data_dir / "overrides").write_text("\n".join(kept))
    return data_dir


def test_what_is_given_comes_on_top_of_what_the_data_directory_says(data_dir: Path) -> None:
    settings = settings_of(None, ["server.port=8124"])

    assert (settings.server.port, settings.database.port, settings.pool.desktop) == (8124, 6543, True)
    assert settings.database.service.password == f"file:{data_dir.parent}/password"


def test_another_database_has_nothing_to_do_with_the_data_directory(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABLINK_APP_PASSWORD", "another")

    assert settings_of(None, ["database.host=localhost"]).database.port == 5432
    assert settings_of(data_dir, ["database.host=localhost"]).database.port == 6543


def refused(directory: Path, *arguments: str) -> str:
    """What a `lablink serve` says that ends at once with exit code 2."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABLINK_")}
    done = subprocess.run(
        [LABLINK, "serve", *arguments], cwd=directory, env=environment, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_missing_secret_ends_the_start_with_its_name(tmp_path: Path) -> None:
    assert "LABLINK_APP_PASSWORD is not set" in refused(tmp_path)
    missing = f"database.service.password=file:{tmp_path}/nowhere"
    assert f"{tmp_path}/nowhere cannot be read" in refused(tmp_path, missing)


def test_a_missing_certificate_authority_ends_the_start_with_its_name(tmp_path: Path) -> None:
    elsewhere = ("database=server", "database.host=db.example.org", "database.ca_file=ca.pem")

    assert "database.ca_file: must be a file that can be read" in refused(tmp_path, *elsewhere)


def test_a_service_whose_database_is_away_starts_all_the_same(data_dir: Path) -> None:
    port = free_port()
    process = subprocess.Popen([LABLINK, "serve", f"server.port={port}", "log.level=error"], cwd=data_dir.parent)
    try:
        until(lambda: _status(port) == b"503", "an answer", 30)
    finally:
        process.terminate()
        process.wait(30)


def _status(port: int) -> bytes:
    """The status of /readyz; empty while nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as connection:
            connection.sendall(b"GET /readyz HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
            return connection.recv(100).split()[1]
    except (OSError, IndexError):
        return b""


def test_answers_do_not_wait_for_an_acknowledgement_of_their_first_part() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        listener_of(load_settings([f"server.port={port}"]).server, None) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_port_that_is_taken_is_named_without_what_the_system_calls_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(CommandFailed) as refused:
        listener_of(load_settings([f"server.port={taken.getsockname()[1]}"]).server, None)

    assert "cannot be listened on (address already in use): choose another" in str(refused.value)
