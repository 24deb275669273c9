"""A `lablink up` as people start it: a process of its own, its output read line by line."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Self, TypeVar

from tests.support import LIMIT_SECONDS, warm
from tests.support.processes import Process, descendants

LABLINK = Path(sys.executable).with_name("lablink")
START_SECONDS = 150.0
"""A start is several limits of its own after each other, and says itself which of them was passed."""
LOOK_EVERY = 0.02

PORTS = range(20_000, 32_000)
"""Below those that Linux gives whoever asks for any: such a one may be another's before it is used, or used again."""
_tries = count(211 * os.getpid())
"""Who tests at the same time begins elsewhere."""

T = TypeVar("T")


def run_lablink(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a `lablink` command to its end, where no `.lablink` of this checkout is found."""
    return warm.run([str(LABLINK), *arguments], {**os.environ, "NO_COLOR": "1", **environment})


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given who does not ask for that one."""
    for port in (PORTS[next(_tries) % len(PORTS)] for _ in PORTS):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return port
    raise AssertionError(f"somebody listens on each of {PORTS}")


def until(found: Callable[[], T | None], what: str, seconds: float = LIMIT_SECONDS, every: float = LOOK_EVERY) -> T:
    """The first answer of `found` that is true; fails, saying `what` was waited for, when there is none in time."""
    give_up = time.monotonic() + seconds
    while not (answer := found()):
        assert time.monotonic() < give_up, f"waited {seconds:.0f} s for {what}"
        time.sleep(every)
    return answer


@dataclass
class RunningUp:
    """A `lablink up` under way, where its page is and what it has said."""

    process: subprocess.Popen[str]
    data_dir: Path
    port: int
    lines: list[str] = field(default_factory=list)
    spoken: threading.Condition = field(default_factory=threading.Condition)
    reader: threading.Thread = field(init=False)

    def __post_init__(self) -> None:
        self.reader = threading.Thread(target=self._read, daemon=True)

    @classmethod
    def start(cls, data_dir: Path, port: int, *arguments: str) -> Self:
        """Start it; use `hears` to wait for what it says."""
        process = subprocess.Popen(
            [LABLINK, "up", f"--data-dir={data_dir}", f"--port={port}", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "NO_COLOR": "1"},
        )
        self = cls(process, data_dir, port)
        self.reader.start()
        return self

    @property
    def url(self) -> str:
        """Where its page is."""
        return f"http://127.0.0.1:{self.port}"

    def dsn(self) -> str:
        """Where to connect as the owner of its database."""
        return run_lablink("db", "url", f"--data-dir={self.data_dir}").stdout.strip()

    def lablink(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a command on it."""
        return run_lablink(*arguments, LABLINK_DATA_DIR=str(self.data_dir))

    def json(self, *arguments: str) -> Any:
        """What a command prints with --json."""
        done = self.lablink(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def hears(self, words: str, times: int = 1, seconds: float = LIMIT_SECONDS) -> str:
        """Wait until it has said `words` that many times; returns the line."""
        with self.spoken:
            self.spoken.wait_for(lambda: len(self._said(words)) >= times or self.ended, seconds)
        said = self._said(words)
        assert len(said) >= times, f"never said {words!r}, but:\n{self.output}"
        return said[times - 1]

    @property
    def output(self) -> str:
        """All that it has said so far."""
        return "".join(self.lines)

    @property
    def ended(self) -> bool:
        """True when nothing more will be said."""
        return bool(self.lines) and not self.lines[-1]

    def children(self) -> set[Process]:
        """All processes below it."""
        return descendants(self.process.pid)

    def running(self, words: str) -> list[Process]:
        """The children whose command line has `words` in it; what one of them forks has the same until it says more."""
        found = [process for process in self.children() if words in process.command]
        return [process for process in found if process.parent not in {each.pid for each in found}]

    def child(self, words: str) -> int:
        """The process id of the one child whose command line has `words` in it."""
        found = self.running(words)
        assert len(found) == 1, f"{len(found)} processes have {words!r} in their command line"
        return found[0].pid

    def stop(self, sign: signal.Signals = signal.SIGINT) -> int:
        """Ask it to end; returns its exit code once it has."""
        self.process.send_signal(sign)
        return self.process.wait(LIMIT_SECONDS)

    def close(self) -> None:
        """Read what is left of its output, once it has ended."""
        self.reader.join(LIMIT_SECONDS)
        assert self.process.stdout
        self.process.stdout.close()

    def _said(self, words: str) -> list[str]:
        return [line for line in self.lines if words in line]

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._note(line)
        self._note("")

    def _note(self, line: str) -> None:
        with self.spoken:
            self.lines.append(line)
            self.spoken.notify_all()


@contextmanager
def running_up(data_dir: Path, *arguments: str, port: int | None = None) -> Iterator[RunningUp]:
    """A `lablink up` that is ready, stopped at the end of the block if it still runs."""
    up = RunningUp.start(data_dir, port or free_port(), *arguments)
    try:
        up.hears("Ready in", seconds=START_SECONDS)
        yield up
    finally:
        if up.process.poll() is None:
            up.stop()
        up.close()


@contextmanager
def open_directory(below: Path | None = None) -> Iterator[Path]:
    """An empty directory that every user may enter, where temporary ones are or `below`; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="lablink-up-", dir=below) as name:
        Path(name).chmod(0o755)
        yield Path(name)
