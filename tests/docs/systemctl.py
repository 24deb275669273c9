"""Stands in for systemd where a document has units started: runs what a unit says, below a directory of a test's."""

import os
import pwd
import shlex
import signal
import subprocess
import sys
import time
from configparser import RawConfigParser
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIMIT_SECONDS = 90.0
LOOK_EVERY = 0.02


@dataclass(frozen=True, slots=True)
class Unit:
    """A unit whose file lies below `root`, and what is known of its process."""

    root: Path
    name: str

    @property
    def log(self) -> Path:
        """What it printed."""
        return self.root / "run" / f"{self.name}.log"

    def start(self) -> None:
        """Start its program, if it does not run, and wait for what it wants to have waited for."""
        if self._pid() is None:
            service = self._service()
            with open(self.log, "ab") as log:
                process = subprocess.Popen(
                    shlex.split(service["ExecStart"]),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd="/",
                    start_new_session=True,
                    **_account(service.get("User")),
                )
            self._pid_file.write_text(str(process.pid))
            if check := service.get("ExecStartPost"):
                subprocess.run(shlex.split(check), check=True, timeout=LIMIT_SECONDS)

    def stop(self) -> None:
        """Ask its program to end, as the unit says, and wait until it has."""
        give_up = time.monotonic() + LIMIT_SECONDS
        if (pid := self._pid()) is not None:
            os.kill(pid, signal.Signals[self._service().get("KillSignal", "SIGTERM")])
        while self._pid() is not None:
            if time.monotonic() > give_up:
                raise TimeoutError(f"{self.name} does not stop")
            time.sleep(LOOK_EVERY)

    @property
    def _pid_file(self) -> Path:
        return self.root / "run" / f"{self.name}.pid"

    def _pid(self) -> int | None:
        """The process, if it runs; one of our own children that has ended is taken leave of."""
        with suppress(OSError, ValueError):
            pid = int(self._pid_file.read_text())
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            os.kill(pid, 0)
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                return pid
        return None

    def _service(self) -> dict[str, str]:
        unit = RawConfigParser(strict=False)
        unit.optionxform = str  # type: ignore[assignment,method-assign]
        unit.read_string((self.root / "etc/systemd/system" / f"{self.name}.service").read_text())
        return dict(unit["Service"])


def stop_everything(root: Path) -> None:
    """End whatever was started below `root`, the newest first."""
    started = sorted((root / "run").glob("*.pid"), key=lambda file: file.stat().st_mtime, reverse=True)
    for file in started:
        Unit(root, file.stem).stop()


def _account(name: str | None) -> dict[str, Any]:
    """Whom a program runs as: the unit's user where there is one and we may become it, else ourselves."""
    if name and os.geteuid() == 0:
        with suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    return {}


def main(verb: str, *names: str) -> None:
    """`systemctl`, as far as our documents use it; its root is in the environment."""
    for unit in (Unit(Path(os.environ["ROOT"]), name) for name in names if not name.startswith("-")):
        if verb in ("stop", "restart"):
            unit.stop()
        if verb in ("start", "restart", "enable"):
            unit.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
