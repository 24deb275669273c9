"""`lablink-client install` makes a machine whose client has no rights on it; here below a directory."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from client.install import Installation, InstallError

ROOT = Path(__file__).parents[2]
URL = "https://lablink.example.org"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a machine is set up by root")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """The root directory of a machine that was set up with a join token in a file."""
    (tmp_path / "token").write_text("of-this-machine")
    Installation(URL, token_file=tmp_path / "token", root=tmp_path / "root").install()
    return tmp_path / "root"


def analyze(machine: Path, *words: str) -> str:
    done = subprocess.run(["systemd-analyze", *words, f"--root={machine}"], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def account(machine: Path, name: str) -> list[str]:
    accounts = [line.split(":") for line in (machine / "etc/passwd").read_text().splitlines()]
    [found] = [each for each in accounts if each[0] == name]
    return found


def test_systemd_finds_little_that_the_client_may_do(machine: Path) -> None:
    said = analyze(machine, "security", "--offline=true", "lablink-client.service")
    exposure = re.search(r"exposure level for lablink-client.service: ([0-9.]+)", said)

    assert exposure, said
    assert float(exposure[1]) <= 2.0


@pytest.mark.parametrize("unit", ["lablink-client.service", "lablink-helper.socket", "lablink-helper@.service"])
def test_systemd_understands_every_line_of_a_unit(machine: Path, unit: str) -> None:
    said = analyze(machine, "verify", str(machine / "etc/systemd/system" / unit))

    assert re.findall(rf"^.*{unit}:[0-9]+: .*$", said, re.MULTILINE) == []


def test_client_and_socket_start_at_every_boot(machine: Path) -> None:
    units = machine / "etc/systemd/system"
    assert (units / "multi-user.target.wants/lablink-client.service").is_symlink()
    assert (units / "sockets.target.wants/lablink-helper.socket").is_symlink()


def test_the_client_and_the_person_are_two_accounts(machine: Path) -> None:
    client, person = account(machine, "lablink"), account(machine, "labuser")

    assert client[2] != person[2]
    assert client[6].endswith("nologin")
    assert (person[5], person[6]) == ("/var/lib/lablink/session", "/bin/bash")


def test_the_settings_name_what_was_given(machine: Path) -> None:
    file = machine / "etc/lablink/client.json"
    assert json.loads(file.read_text()) == {
        "allocator_url": URL,
        "join_token_file": "/var/lib/lablink/client/join-token",
        "session_user": "labuser",
        "helper": "/run/lablink/helper.sock",
        "phases": "/var/lib/lablink/phases",
    }
    assert file.stat().st_mode & 0o777 == 0o644
    assert file.stat().st_uid == 0


def test_the_join_token_is_the_clients_and_nobody_elses(machine: Path) -> None:
    token = machine / "var/lib/lablink/client/join-token"

    assert token.read_text() == "of-this-machine"
    assert not (machine.parent / "token").exists()
    assert (token.stat().st_uid, token.stat().st_mode & 0o777) == (int(account(machine, "lablink")[2]), 0o600)
    assert (token.parent.stat().st_uid, token.parent.stat().st_mode & 0o777) == (token.stat().st_uid, 0o700)
    assert machine.joinpath("var/lib/lablink").stat().st_mode & 0o777 == 0o711


def test_an_instance_on_ec2_is_told_the_name_of_its_secret(tmp_path: Path) -> None:
    Installation(URL, join_secret="lablink-prod/join/vm-1", session_user="researcher", root=tmp_path).install()
    settings = json.loads((tmp_path / "etc/lablink/client.json").read_text())

    assert (settings["join_secret"], settings["session_user"]) == ("lablink-prod/join/vm-1", "researcher")
    assert "join_token_file" not in settings


def test_who_sets_up_a_machine_is_told_what_the_hub_needs(tmp_path: Path) -> None:
    without = "import sys; sys.modules['websockets'] = None; "
    words = ["install", f"--url={URL}", f"--root={tmp_path}"]
    for before, told in (("", False), (without, True)):
        program = f"{before}from client.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program, *words], capture_output=True, text=True, check=True)
        assert ("-m pip install 'lablink[hub]'" in done.stderr) == told


def test_a_machine_may_be_set_up_again(machine: Path) -> None:
    before = (machine / "etc/passwd").read_text()
    Installation(URL, start_host="/opt/start-host", root=machine).install()

    assert (machine / "etc/passwd").read_text() == before
    assert json.loads((machine / "etc/lablink/client.json").read_text())["start_host"] == "/opt/start-host"


@pytest.mark.parametrize("user", ["root", "lablink", "a b", "x:0:0", "-x", ""])
def test_people_get_an_account_of_their_own(tmp_path: Path, user: str) -> None:
    with pytest.raises(InstallError, match="name one of its own"):
        Installation(URL, session_user=user, root=tmp_path).install()

    assert list(tmp_path.iterdir()) == []


def test_a_missing_join_token_is_named(tmp_path: Path) -> None:
    with pytest.raises(InstallError, match="no-such-file"):
        Installation(URL, token_file=tmp_path / "no-such-file", root=tmp_path).install()


@pytest.mark.slow
@pytest.mark.timeout(300)  # pip fetches and unpacks
def test_the_wheel_installs_with_asyncpg_alone_and_sets_up_a_machine(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path], cwd=ROOT, check=True)
    [wheel] = tmp_path.glob("*.whl")
    programs = tmp_path / "venv/bin"
    subprocess.run([sys.executable, "-m", "venv", programs.parent], check=True)
    subprocess.run([programs / "pip", "install", "--quiet", "--no-input", wheel], check=True, stderr=subprocess.DEVNULL)
    listed = subprocess.run([programs / "pip", "list", "--format=json"], capture_output=True, check=True)
    install = ["install", f"--url={URL}", f"--root={tmp_path}/root"]
    subprocess.run([programs / "lablink-client", *install], cwd=tmp_path, check=True)

    assert {each["name"] for each in json.loads(listed.stdout)} - {"pip", "setuptools"} == {"asyncpg", "lablink"}
    unit = (tmp_path / "root/etc/systemd/system/lablink-client.service").read_text()
    assert f"ExecStart={programs}/lablink-client run " in unit
