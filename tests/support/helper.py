"""The helper as systemd starts it: a process of its own for each connection, by systemd's own socket activation."""

import asyncio
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from client.checks import Checks
from client.delegate import Delegate
from client.executor import OwnExecutor
from client.helper import attend
from client.runner import Programs
from client.session import Account, Session
from tests.support import LIMIT_SECONDS

UID = 55_000 + os.getpid() % 5_000 if os.geteuid() == 0 else os.geteuid()
"""Whom commands run as: where root tests, nobody else and another in every process that tests at the same time."""


@dataclass(frozen=True, slots=True)
class Helped:
    """A machine whose helper answers this process's user only."""

    root: Path
    uid: int = UID

    @property
    def socket(self) -> Path:
        """Where the helper listens."""
        return self.root / "helper.sock"

    @property
    def executor(self) -> Delegate:
        """The session, by way of the helper."""
        return Delegate(self.socket)

    @property
    def session(self) -> Session:
        """The session, as the helper has it."""
        account = Account("lablink-test", self.uid, self.uid, ()) if os.geteuid() == 0 else None
        return Session(self.root / "session", account, ())

    def start_host(self, then: str) -> None:
        """Install a start-host that does `then`."""
        script = self.root / "start-host"
        script.write_text(f"#!/bin/sh\n{then}\n")
        script.chmod(0o755)


@contextmanager
def helped_machine(*, answers: int | None = None) -> Iterator[Helped]:
    """A machine with a helper, which answers `answers` (None: whoever runs this)."""
    root = Path(tempfile.mkdtemp())
    root.chmod(0o711)
    machine = Helped(root)
    client = os.geteuid() if answers is None else answers
    command = [sys.executable, "-m", "tests.support.helper", str(root), str(UID), str(client)]
    log = root / "log"
    with open(log, "w") as said:
        listener = subprocess.Popen(
            ["systemd-socket-activate", "--accept", "--inetd", f"--listen={machine.socket}", *command],
            stderr=said,
            stdin=subprocess.DEVNULL,
        )
    try:
        give_up = time.monotonic() + LIMIT_SECONDS
        while "Listening" not in log.read_text():
            assert time.monotonic() < give_up, "nothing listens"
            time.sleep(0.005)
        yield machine
    finally:
        listener.terminate()
        listener.wait(LIMIT_SECONDS)
        asyncio.run(machine.session.wipe())
        shutil.rmtree(root)


def main(root: str, uid: str, answers: str) -> None:
    """What systemd starts, with the connection as standard input."""
    machine = Helped(Path(root), int(uid))
    checks = Checks(machine.root, machine.root / "checks.d", 0)
    executor = OwnExecutor(machine.session, Programs(start_host=f"{root}/start-host"), checks)
    asyncio.run(attend(socket.socket(fileno=os.dup(0)), int(answers), executor))


if __name__ == "__main__":
    main(*sys.argv[1:])
