"""Everything that compose.yaml starts, in a place of its own, and people who ask it for a machine."""

import json
import os
import shutil
import signal
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.images.engine import POSTGRES, Failed, compose, inspected, run
from tests.support.up import free_port, until

DOCKER = Path(__file__).parents[2] / "docker"
MACHINES = ("vm-1", "vm-2", "vm-3")
LEASES = "/api/v1/leases"
AVAILABLE = """
    SELECT hostname FROM vms JOIN vm_heartbeats ON vm_id = id
    WHERE status = 'available' AND seen_at > pg_postmaster_start_time()
"""


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs under a directory with compose.yaml in it."""

    directory: Path
    project: str
    port: int
    transport: str = "direct"

    def compose(self, *arguments: str) -> str:
        """What a compose command prints."""
        return run(*compose(), *arguments, cwd=self.directory, env=self._environment)

    def container(self, service: str) -> str:
        """The id of a service's container."""
        return self.compose("ps", "--quiet", service).strip()

    def lablink(self, *arguments: str) -> str:
        """What an admin's command prints in the allocator's container."""
        return run("docker", "exec", f"{self.project}-allocator", "lablink", *arguments)

    def psql(self, statement: str) -> str:
        """What the guide's psql answers."""
        psql = ("psql", "-U", "lablink", "-d", "lablink_db", "--no-psqlrc", "-At", "-c", statement)
        return run("docker", "exec", f"{self.project}-postgres", *psql).strip()

    def is_ready(self) -> bool:
        """Whether every machine can be lent at this moment."""
        with suppress(Failed):  # PostgreSQL may be on its way
            return set(self.psql(AVAILABLE).split()) == set(MACHINES)
        return False

    def transports(self) -> set[str | None]:
        """How the machines speak."""
        with suppress(Failed):  # the allocator may be on its way
            return {vm["transport"] for vm in json.loads(self.lablink("vms", "list", "--json"))}
        return set()

    def crash(self, service: str) -> None:
        """Have a service's first process killed from outside, and wait until the engine has started it again."""
        container = self.container(service)
        pid = until(lambda: int(inspected(container)["State"]["Pid"]), f"{service} to run")
        before = inspected(container)
        os.kill(pid, signal.SIGKILL)
        until(lambda: inspected(container)["RestartCount"] > before["RestartCount"], f"{service} to come back")

    def browser(self) -> httpx.Client:
        """Somebody who trusts the authority that `prepare` made, and no other."""
        trusting = ssl.create_default_context(cafile=self.directory / "secrets" / "authority.pem")
        return httpx.Client(base_url=f"https://localhost:{self.port}", verify=trusting, timeout=60)

    def serve(self, email: str) -> dict[str, Any]:
        """Somebody asks for a machine, has their command run and gives it back; returns their lease before that."""
        with self.lending(email) as lease:
            return lease()

    @contextmanager
    def lending(self, email: str) -> Iterator[Callable[[], dict[str, Any]]]:
        """Somebody has a machine until the block ends, and their command has run: what is yielded tells their lease."""
        with self.browser() as browser:
            wanted = {"email": email, "crd_command": f"echo hello {email}"}
            given = until(lambda: _accepted(browser, wanted), "an accepted request")
        address, holder = f"{LEASES}/{given['id']}", {"Authorization": f"Bearer {given['token']}"}

        def lease() -> dict[str, Any]:
            with self.browser() as browser:
                found: dict[str, Any] = browser.get(address, headers=holder).json()
                return found

        until(lambda: lease().get("exit_code") is not None, "the command to end")
        yield lease
        with self.browser() as browser:
            assert browser.delete(address, headers=holder).is_success

    @property
    def _environment(self) -> dict[str, str]:
        url = f"https://localhost:{self.port}"
        ours = {"LABLINK_PORT": str(self.port), "LABLINK_URL": url, "COMPOSE_PROJECT_NAME": self.project}
        return {**os.environ, **ours, "POSTGRES_IMAGE": POSTGRES, "LABLINK_TRANSPORT": self.transport}


def copied(directory: Path) -> Path:
    """`directory`, with what docker/ has in a new checkout."""
    return shutil.copytree(DOCKER, directory, ignore=shutil.ignore_patterns("secrets", ".env"))


@contextmanager
def running_stack(directory: Path) -> Iterator[Stack]:
    """It runs, with every machine available, until the block ends."""
    run(copied(directory) / "prepare")
    stack = Stack(directory, f"lablink-test-{os.getpid()}", free_port())
    try:
        stack.compose("up", "--detach")
        until(stack.is_ready, "three machines")
        yield stack
    finally:
        logs = stack.compose("logs", "--no-color", "--tail", "200")
        (directory / "logs").write_text(logs)
        stack.compose("down", "--volumes", "--timeout", "3")


def _accepted(browser: httpx.Client, wanted: dict[str, str]) -> dict[str, Any] | None:
    with suppress(httpx.TransportError):
        answer = browser.post(LEASES, json=wanted)
        if answer.status_code == httpx.codes.CREATED:
            given: dict[str, Any] = answer.json()
            return given
    return None
