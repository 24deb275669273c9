"""How `lablink serve` starts: with which settings, on which socket, and when it does not."""

import os
import resource
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from allocator.cli.failures import CommandFailed
from allocator.cli.serve import listener_of, settings_of
from allocator.config import load_settings
from tests.support import LIMIT_SECONDS, warm
from tests.support.certificates import Authority
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


def refused(*arguments: str) -> str:
    """What a `lablink serve` says that ends at once with exit code 2."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LABLINK_")}
    done = warm.run([str(LABLINK), "serve", *arguments], environment)
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


def test_a_missing_secret_ends_the_start_with_its_name(tmp_path: Path) -> None:
    assert "LABLINK_APP_PASSWORD is not set" in refused()
    missing = f"database.service.password=file:{tmp_path}/nowhere"
    assert f"{tmp_path}/nowhere cannot be read" in refused(missing)


@pytest.mark.parametrize("duty", [("backup=local",), ("fleet=aws",)], ids=["backups", "fleet"])
def test_what_the_owner_does_for_the_service_needs_the_owners_password(tmp_path: Path, duty: tuple[str, ...]) -> None:
    (tmp_path / "app").write_text("password")
    app = f"database.service.password=file:{tmp_path}/app"

    assert "LABLINK_OWNER_PASSWORD is not set" in refused(app, *duty)


def test_a_missing_certificate_authority_ends_the_start_with_its_name(tmp_path: Path) -> None:
    elsewhere = ("database=server", "database.host=db.example.org", "database.ca_file=ca.pem")

    assert "database.ca_file: must be a file that can be read" in refused(*elsewhere)


@pytest.fixture
def own_tls(tmp_path: Path) -> list[str]:
    """The settings of a service that shows a certificate of its own, for `localhost`."""
    for name, content in zip(("web.crt", "web.key"), Authority.under(tmp_path).issue("localhost"), strict=True):
        (tmp_path / name).write_bytes(content)
    files = (f"server.certificate={tmp_path}/web.crt", f"server.key={tmp_path}/web.key")
    return ["server.public_url=https://localhost", *files]


def test_a_key_that_is_not_the_certificates_ends_the_start(data_dir: Path, own_tls: list[str]) -> None:
    place = ("--data-dir", str(data_dir))
    (data_dir.parent / "other.key").write_bytes(Authority.under(data_dir).issue("localhost")[1])

    assert "must be the private key of" in refused(*place, *own_tls, f"server.key={data_dir.parent}/other.key")
    assert "must be files that can be read" in refused(*place, *own_tls, "server.key=/nowhere")


@contextmanager
def serving(directory: Path, *settings: str, **environment: str) -> Iterator[int]:
    """A `lablink serve` in this directory. Gives its port."""
    port = free_port()
    command = [str(LABLINK), "serve", *settings, f"server.port={port}", "log.level=error"]
    process = subprocess.Popen(command, cwd=directory, env=os.environ | environment)
    try:
        yield port
    finally:
        process.terminate()
        process.wait(LIMIT_SECONDS)


def test_a_service_with_a_certificate_speaks_tls_and_nothing_else(data_dir: Path, own_tls: list[str]) -> None:
    trusting = ssl.create_default_context(cafile=data_dir.parent / "authority.pem")
    with (
        serving(data_dir.parent, *own_tls) as port,
        httpx.Client(base_url=f"https://localhost:{port}", verify=trusting, timeout=LIMIT_SECONDS) as browser,
    ):
        until(lambda: _is_alive(browser), "an answer over TLS")
        assert "max-age" in browser.get("/livez").headers["Strict-Transport-Security"]
        assert _status(port) == b""


def _is_alive(browser: httpx.Client) -> bool:
    with suppress(httpx.ConnectError):
        return browser.get("/livez").is_success
    return False


def test_a_service_whose_database_is_away_starts_all_the_same(data_dir: Path) -> None:
    with serving(data_dir.parent) as port:
        until(lambda: _status(port) == b"503", "an answer")


def test_it_runs_on_the_loop_that_it_was_made_for_whatever_else_is_installed(data_dir: Path) -> None:
    (data_dir / "uvloop.py").write_text("raise SystemExit('this loop was not asked for')")
    with serving(data_dir.parent, PYTHONPATH=str(data_dir)) as port:
        until(lambda: _status(port) == b"503", "an answer")


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


def test_it_takes_as_many_connections_as_the_system_lets_it(tmp_path: Path) -> None:
    limited = ["sh", "-c", 'ulimit -Sn 256; exec "$@"', "sh", str(LABLINK), "serve", f"--set=server.port={free_port()}"]
    environment = os.environ | {"LABLINK_APP_PASSWORD": "secret", "LABLINK_OWNER_PASSWORD": "secret"}
    serving = subprocess.Popen(limited, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        until(lambda: resource.prlimit(serving.pid, resource.RLIMIT_NOFILE) == (most, most), "as many as there may be")
    finally:
        serving.terminate()
        serving.wait()
