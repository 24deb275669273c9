"""What machines and the allocator run at their first boot, as cloud-init unpacks it."""

import base64
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from allocator.arrivals import last_phase
from client.boot import boot_of
from tests.support.terraform import CHECKOUT
from tests.terraform.templates import evaluated, rendered

SHELLCHECK = Path(sys.executable).with_name("shellcheck")

MACHINE = {
    "hostname": "vm-1",
    "url": "https://lablink.example.org",
    "secret": "lablink-test/join/vm-1",
    "package": None,
    "image": None,
    "startup_script": "",
}
MACHINES: dict[str, dict[str, str]] = {
    "wheel": {"package": "lablink==1.0"},
    "image": {"image": "ghcr.io/lab/desktop:1.0"},
    "ami": {},
    "script": {"startup_script": base64.b64encode(b"#!/bin/sh\ntrue\n").decode()},
}
STARTUP = b'#!/bin/sh\necho once >>"$ROOT/startups"\n'

ALLOCATOR = {
    "hostname": "lablink.example.org",
    "cidr": "10.42.0.0/16",
    "region": "eu-central-1",
    "volume": "vol0123456789abcdef0",
    "container": True,
    "image": "docker.io/library/postgres:17",
    "certificate": None,
    "database": {"host": "db.example.org", "port": 5432, "master_secret_arn": "arn:aws:secretsmanager:rds"},
}
ALLOCATORS: dict[str, dict[str, Any]] = {
    "container": {},
    "rds": {"container": False},
    "certificate": {"certificate": "arn:aws:secretsmanager:web"},
}


def complaints(script: str, directory: Path) -> str:
    """What shellcheck has against it."""
    file = directory / "boot"
    file.write_text(script)
    return subprocess.run([SHELLCHECK, file], capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("variant", MACHINES)
def test_a_machine_s_boot_script_is_sound(variant: str, tmp_path: Path, terraform_environment: dict[str, str]) -> None:
    template = rendered("fleet/boot.yaml.tftpl", MACHINE | MACHINES[variant])
    boot = evaluated(f"yamldecode({template})", tmp_path, terraform_environment)
    assert complaints(boot["write_files"][0]["content"], tmp_path) == ""


def test_a_container_that_is_a_machine_has_the_rights_that_it_has_in_compose(
    tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    template = rendered("fleet/boot.yaml.tftpl", MACHINE | MACHINES["image"])
    boot = evaluated(f"yamldecode({template})", tmp_path, terraform_environment)
    [run] = re.findall(r"docker run .*", boot["write_files"][0]["content"].replace("\\\n", ""))
    words = run.split()
    given = [(words[at], words[at + 1]) for at, word in enumerate(words) if word.startswith("--")]
    machine = evaluated(f'yamldecode(file("{CHECKOUT}/docker/machine.yaml"))', tmp_path, terraform_environment)
    allowed = machine["services"]["machine"]

    assert [right for option, right in given if option == "--cap-drop"] == allowed["cap_drop"]
    assert [right for option, right in given if option == "--cap-add"] == allowed["cap_add"]
    assert [f"{what}:true" for option, what in given if option == "--security-opt"] == allowed["security_opt"]
    assert ("--pids-limit", str(allowed["pids_limit"])) in given


@pytest.mark.parametrize("hostname", ["1234", "007", "no", "null", "1-2"])
def test_every_hostname_is_a_word_to_cloud_init(
    hostname: str, tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    template = rendered("fleet/boot.yaml.tftpl", MACHINE | {"hostname": hostname})
    assert evaluated(f"yamldecode({template})", tmp_path, terraform_environment)["hostname"] == hostname


@pytest.mark.parametrize("variant", ALLOCATORS)
def test_the_allocator_s_boot_script_is_sound(
    variant: str, tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    script = evaluated(
        rendered("allocator/boot.sh.tftpl", ALLOCATOR | ALLOCATORS[variant]), tmp_path, terraform_environment
    )
    assert complaints(script, tmp_path) == ""


class FirstBoot:
    """A machine whose AMI has the client, with its directories below one of ours."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self.root = directory
        self.client = directory / "opt/lablink/bin/lablink-client"
        self.client.parent.mkdir(parents=True)
        self.console = directory / "dev/console"
        self.console.parent.mkdir()
        template = rendered("fleet/boot.yaml.tftpl", MACHINE | {"startup_script": base64.b64encode(STARTUP).decode()})
        self.script, startup = evaluated(f"yamldecode({template})", directory, environment)["write_files"]
        self._write(self._below(startup["path"]), base64.b64decode(startup["content"]).decode())

    def run(self, client: str) -> int:
        """Boot with a client whose `install` is that line of shell, and tell the exit code of it all."""
        self._write(str(self.client), f"#!/bin/sh\n{client}\n")
        script = self.root / "boot"
        self._write(str(script), self._below(self.script["content"]))
        return subprocess.run([script], env=os.environ | {"ROOT": str(self.root)}, check=False).returncode

    def _below(self, words: str) -> str:
        kept = words.replace(">/dev/console", f">>{self.console}")
        return re.sub(r"(?<![\w.])/(?=(var|opt|usr/local/lib)\b)", f"{self.root}/", kept)

    def _write(self, path: str, words: str) -> None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(words)
        Path(path).chmod(0o755)


def test_a_boot_that_went_wrong_is_taken_up_again_by_the_next(
    tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    machine = FirstBoot(tmp_path, terraform_environment)
    assert machine.run("exit 3") == 3
    assert last_phase(machine.console.read_text()) == "client: failed"
    assert machine.run('echo "$@" >"$ROOT/told"') == 0
    assert (tmp_path / "told").read_text() == f"install --url {MACHINE['url']} --join-secret {MACHINE['secret']}\n"
    assert machine.run("exit 3") == 0, "it has booted, and boots no more"
    assert (tmp_path / "startups").read_text() == "once\n"


def test_a_boot_tells_the_client_when_its_phases_began(tmp_path: Path, terraform_environment: dict[str, str]) -> None:
    machine = FirstBoot(tmp_path, terraform_environment)
    assert machine.run("true") == 0
    boot = boot_of(0.0, tmp_path / "var/lib/lablink/phases", None)
    assert boot is not None
    assert [name for name, _ in boot.phases] == ["cloud-init", "startup-script", "client", "ready-check"]


def test_a_startup_script_is_written_before_cloud_init_runs_the_boot(
    tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    template = rendered("fleet/boot.yaml.tftpl", MACHINE | MACHINES["script"])
    boot = evaluated(f"yamldecode({template})", tmp_path, terraform_environment)
    written = [file["path"] for file in boot["write_files"]]
    assert written == ["/var/lib/cloud/scripts/per-boot/lablink", "/usr/local/lib/lablink/startup-script"]
