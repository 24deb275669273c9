"""What machines and the allocator run at their first boot, as cloud-init unpacks it."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.conftest import ROOT

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


def evaluated(expression: str, directory: Path, environment: dict[str, str]) -> Any:
    """What the expression is to Terraform."""
    asked = f"base64encode(jsonencode({expression}))"
    done = subprocess.run(
        ["terraform", "console"],
        input=asked,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(base64.b64decode(json.loads(done.stdout)))


def rendered(template: str, values: dict[str, Any]) -> str:
    """The expression of that file of a module with these values in it."""
    return f'templatefile("{ROOT}/modules/{template}", {json.dumps(values)})'


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


@pytest.mark.parametrize("variant", ALLOCATORS)
def test_the_allocator_s_boot_script_is_sound(
    variant: str, tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    script = evaluated(
        rendered("allocator/boot.sh.tftpl", ALLOCATOR | ALLOCATORS[variant]), tmp_path, terraform_environment
    )
    assert complaints(script, tmp_path) == ""


def test_a_startup_script_is_written_before_it_is_run(tmp_path: Path, terraform_environment: dict[str, str]) -> None:
    template = rendered("fleet/boot.yaml.tftpl", MACHINE | MACHINES["script"])
    boot = evaluated(f"yamldecode({template})", tmp_path, terraform_environment)
    written = [file["path"] for file in boot["write_files"]]
    assert written == ["/usr/local/lib/lablink/boot", "/usr/local/lib/lablink/startup-script"]
    assert boot["runcmd"] == [["/usr/local/lib/lablink/boot"]]
