"""What machines run at their first boot, as cloud-init unpacks it."""

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.terraform.conftest import ROOT

SHELLCHECK = Path(sys.executable).with_name("shellcheck")

GIVEN = {
    "hostname": "vm-1",
    "url": "https://lablink.example.org",
    "secret": "lablink-test/join/vm-1",
    "package": None,
    "image": None,
    "startup_script": "",
}
VARIANTS: dict[str, dict[str, str]] = {
    "wheel": {"package": "lablink==1.0"},
    "image": {"image": "ghcr.io/lab/desktop:1.0"},
    "ami": {},
    "script": {"startup_script": base64.b64encode(b"#!/bin/sh\ntrue\n").decode()},
}


def boot_of(directory: Path, environment: dict[str, str], **given: str) -> dict[str, Any]:
    """The user-data of a machine, as its YAML says it."""
    values = json.dumps(GIVEN | given)
    asked = f'base64encode(jsonencode(yamldecode(templatefile("{ROOT}/modules/fleet/boot.yaml.tftpl", {values}))))'
    done = subprocess.run(
        ["terraform", "console"],
        input=asked,
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    boot: dict[str, Any] = json.loads(base64.b64decode(json.loads(done.stdout)))
    return boot


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_boot_script_is_one_that_shellcheck_likes(
    variant: str, tmp_path: Path, terraform_environment: dict[str, str]
) -> None:
    boot = boot_of(tmp_path, terraform_environment, **VARIANTS[variant])
    script = tmp_path / "boot"
    script.write_text(boot["write_files"][0]["content"])
    done = subprocess.run([SHELLCHECK, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_a_startup_script_is_written_before_it_is_run(tmp_path: Path, terraform_environment: dict[str, str]) -> None:
    boot = boot_of(tmp_path, terraform_environment, **VARIANTS["script"])
    written = [file["path"] for file in boot["write_files"]]
    assert written == ["/usr/local/lib/lablink/boot", "/usr/local/lib/lablink/startup-script"]
    assert boot["runcmd"] == [["/usr/local/lib/lablink/boot"]]
