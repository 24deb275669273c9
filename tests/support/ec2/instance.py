"""One instance that is switched on: processes, accounts, files and network of its own, and its console."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.parent import dying_with_parent
from tests.support.ec2.network import Carrier, Way, inside
from tests.support.metadata import MetadataService, Signer, metadata_service

POWER_ON = Path(__file__).with_name("power-on")
NAMESPACES = ["--pid", "--fork", "--kill-child", "--mount", "--uts", "--ipc", "--net", "--time"]
CGROUPS = "mount -t cgroup2 cgroup2 /sys/fs/cgroup; cd /sys/fs/cgroup; [ ! -d $0 ] || find $0 -depth -type d -delete"
"""Removes the control groups of an instance that is off."""
PROGRAMS = ("terraform", "unshare", "ip", "openssl")
SYSTEMD = Path("/lib/systemd/systemd")
LIMIT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Instance:
    """It runs; `pid` is its systemd, as we know it."""

    id: str
    pid: int
    console: Path

    def disk(self, path: str) -> Path:
        """A file of its disk."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def told(self) -> str:
        """Its console and its journal, for whoever must find out why it did not come."""
        command = ["nsenter", f"--target={self.pid}", "--all", "journalctl", "--no-pager", "--lines=40"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False)
        return f"{self.id}:\n{self.console.read_text()}{done.stdout}{done.stderr}"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What instances are made from, and what leads out of them."""

    image: Path
    signer: Signer
    carrier: Carrier
    ways: tuple[Way, ...]
    directory: Path


@contextmanager
def switched_on(around: Surroundings, known: MetadataService) -> Iterator[Instance]:
    """The instance of which `known` is what its metadata service says; it is switched off, hard, at the end."""
    name = str(known.claims["instanceId"])
    place, console = around.directory / name, around.directory / f"{name}.console"
    place.mkdir()
    console.touch()
    with ExitStack() as opened:
        process = opened.enter_context(_process(name, around.image, place, console))
        [pid] = _children_of(process)
        instance = Instance(name, pid, console)
        with inside(instance.pid):
            opened.enter_context(metadata_service(known, ("169.254.169.254", 80)))
        for way in around.ways:
            opened.enter_context(around.carrier.open(instance.pid, way))
        assert process.stdin
        process.stdin.write("boot\n")
        process.stdin.flush()
        yield instance


@contextmanager
def _process(name: str, image: Path, place: Path, console: Path) -> Iterator[subprocess.Popen[str]]:
    """What waits, in its namespaces, until it is told to boot. It dies with the thread that starts it."""
    begins = [f"--monotonic=-{int(time.monotonic())}", f"--boottime=-{int(time.clock_gettime(time.CLOCK_BOOTTIME))}"]
    words = [str(POWER_ON), f"lablink-{name}", str(image), sys.base_prefix, str(place), str(console)]
    with console.open("w") as said:
        process = subprocess.Popen(
            ["unshare", *NAMESPACES, *begins, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            preexec_fn=dying_with_parent(signal.SIGKILL),
        )
    try:
        assert process.stdout and process.stdout.readline(), console.read_text()
        yield process
    finally:
        for pid in _children_of(process):
            os.kill(pid, signal.SIGKILL)  # its process 1: the kernel ends all others before it lets that go
        process.communicate(timeout=LIMIT_SECONDS)
        subprocess.run(["unshare", "--mount", "sh", "-ec", CGROUPS, f"lablink-{name}"], check=True)


def _children_of(process: subprocess.Popen[str]) -> list[int]:
    """Its process 1, as we know it, if it runs."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def cannot_boot() -> str | None:
    """Why no instance can be switched on here; None where it can."""
    if (missing := [program for program in PROGRAMS if shutil.which(program) is None]) or not SYSTEMD.exists():
        return f"no instance boots without {', '.join([*missing, str(SYSTEMD)])}"
    if os.geteuid() != 0:
        return "instances are switched on by root"
    asked = ["unshare", *NAMESPACES, "true"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return f"this machine gives no namespaces: {done.stderr.strip()}" if done.returncode else None
