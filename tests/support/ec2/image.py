"""The image (AMI) of instances: this machine's Debian, and over it what whoever builds images puts there."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support.certificates import Authority
from tests.support.metadata import REGION

ALLOCATOR = "lablink.example.org"
SECRETS = f"secretsmanager.{REGION}.amazonaws.com"
ADDRESSES = {ALLOCATOR: "127.0.0.1", SECRETS: "127.0.0.2"}
"""What names mean on an instance: its network has no other way out."""

PYTHON = f"python3.{sys.version_info.minor}"
PEOPLES_PYTHON = """#!/bin/sh
LD_LIBRARY_PATH=/opt/python/lib exec /opt/python/bin/python3 "$@"
"""
CLIENT = """#!/opt/lablink/bin/python3
from client.cli import main

main()
"""
MANAGER = "[Manager]\nDefaultEnvironment=LD_LIBRARY_PATH=/opt/python/lib\n"
"""Our Python may have been built to look for its library where only root can."""

CLOUD_INIT = """[Unit]
Description=Stands in for cloud-init

[Service]
Type=oneshot
ExecStart=/opt/python/bin/python3 /opt/cloud-init/cloud_init.py
StandardOutput=file:/var/log/cloud-init-output.log
StandardError=inherit
TimeoutStartSec=5min

[Install]
WantedBy=multi-user.target
"""


def build_image(directory: Path, authority: Authority) -> Path:
    """The files of an image that has the client in /opt/lablink, and trusts an authority."""
    directory.mkdir(mode=0o755)
    _add_client(directory / "opt/lablink")
    _add_cloud_init(directory)
    _add_start_host(directory / "opt/google/chrome-remote-desktop")
    names = "".join(f"{address} {name}\n" for name, address in {"localhost": "127.0.0.1", **ADDRESSES}.items())
    _write(directory / "etc/hosts", names)
    _write(directory / "usr/local/bin/python3", PEOPLES_PYTHON).chmod(0o755)
    _write(directory / "etc/systemd/system.conf.d/python.conf", MANAGER)
    _write(directory / f"etc/ssl/certs/{_hash(authority)}.0", authority.file.read_text())
    return directory


def _add_client(directory: Path) -> None:
    """As pip would install it, with a Python that every account can read, wherever ours is."""
    packages = directory / "lib" / PYTHON / "site-packages"
    for name in ("client", "asyncpg"):
        _add_package(name, packages)
    _write(directory / "pyvenv.cfg", "home = /opt/python/bin\ninclude-system-site-packages = false\n")
    _write(directory / "bin/lablink-client", CLIENT).chmod(0o755)
    (directory / "bin/python3").symlink_to(f"/opt/python/bin/{PYTHON}")


def _add_cloud_init(directory: Path) -> None:
    _add_package("yaml", directory / "opt/cloud-init")
    shutil.copy(Path(__file__).with_name("cloud_init.py"), directory / "opt/cloud-init")
    unit = _write(directory / "etc/systemd/system/cloud-init.service", CLOUD_INIT)
    wants = unit.parent / "multi-user.target.wants"
    wants.mkdir()
    (wants / unit.name).symlink_to(f"../{unit.name}")


def _add_start_host(directory: Path) -> None:
    """The stand-in that `lablink up` gives its machines."""
    found = find_spec("allocator.local.start_host")
    assert found and found.origin
    _, _, body = Path(found.origin).read_text().partition("\n")
    _write(directory / "start-host", f"#!/usr/local/bin/python3\n{body}").chmod(0o755)
    (directory / "codes").mkdir()
    (directory / "codes").chmod(0o1733)


def _add_package(name: str, directory: Path) -> None:
    found = find_spec(name)
    assert found and found.origin
    shutil.copytree(Path(found.origin).parent, directory / name, ignore=shutil.ignore_patterns("__pycache__"))


def _hash(authority: Authority) -> str:
    """The name by which OpenSSL looks for it."""
    command = ["openssl", "x509", "-noout", "-subject_hash", "-in", str(authority.file)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _write(path: Path, words: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(words)
    return path
