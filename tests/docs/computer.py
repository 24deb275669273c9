"""A computer that a document speaks of, played by a directory, below which everything runs for real."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.docs.markdown import PATH, ROOT, Step
from tests.docs.systemctl import stop_everything

LIMIT_SECONDS = 240.0
FOLLOWS_SECONDS = 120.0
PLACES = re.compile(r"(?<![\w./-])/(etc|srv|var/lib)/")
"""Directories of the computer's own, which lie below its root."""

READS = re.compile(r"SELECT\b|curl -s|lablink (\w+ )?(list|show|verify|doctor|locks|listeners)\b")
"""What may be typed again until one sees what the document says: it changes nothing."""

STAND_INS = {
    "systemctl": f'exec {sys.executable} -m tests.docs.systemctl "$@"',
    "journalctl": 'tail -n "$4" "$ROOT/run/$2.log"',
    "sudo": 'shift 2; PGHOST=localhost PGUSER=postgres PGPORT=$PORT PGPASSWORD=$PASSWORD exec "$@"',
    "useradd": "exit 0",
    "chown": "exit 0",
}
"""Programs that would change the machine that tests; sudo is given -u and a user, who we are to PostgreSQL anyway."""


@dataclass(slots=True)
class Computer:
    """A computer with files of its own below `root`; `bound` says what stands for the document's words here."""

    root: Path
    bound: Mapping[str, str]
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for directory in ("bin", "run", "etc/systemd/system", "srv", "var/lib/lablink"):
            (self.root / directory).mkdir(parents=True)
        for name, script in STAND_INS.items():
            self.add_program(name, script)

    def add_program(self, name: str, script: str) -> None:
        """Install a shell script."""
        program = self.root / "bin" / name
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)

    def add_unit(self, name: str, **service: str) -> None:
        """Install a service for systemd to start."""
        lines = [f"{key}={value}" for key, value in service.items()]
        (self.root / "etc/systemd/system" / f"{name}.service").write_text("\n".join(["[Service]", *lines, ""]))

    def type(self, step: Step) -> None:
        """Run a step of a document. Fails when it ends with an error, or does not show what is said."""
        give_up = time.monotonic() + (FOLLOWS_SECONDS if READS.match(step.text) else 0)
        while not self._shows(step, done := self.run(self._command(step))):
            told = f"which ended with {done.returncode} and said\n{done.stdout}"
            assert time.monotonic() < give_up, f"line {step.line}:\n{step.text}\ndid not show {step.seen!r}, but {told}"

    def close(self) -> None:
        """Stop all that runs."""
        stop_everything(self.root)

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """As in one shell: what a command exports, and where it goes, holds for the next."""
        kept = self.root / "run" / "shell"
        kept.touch()
        keep = f"{{ export -p; printf 'cd %q\\n' \"$PWD\"; umask -p; }} > {kept}"
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f". {kept}\n{command}\n{keep}"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LIMIT_SECONDS,
            cwd=self.root,
            env=self._environment(),
        )

    def _shows(self, step: Step, done: subprocess.CompletedProcess[str]) -> bool:
        reached = not (step.in_table and re.search(r"^(UPDATE|DELETE) 0$", done.stdout, re.MULTILINE))
        return done.returncode == 0 and reached and shows(done.stdout, self._words(step.seen))

    def _command(self, step: Step) -> str:
        if step.language == "sql":
            return f"lablink db shell -v ON_ERROR_STOP=1 <<'STATEMENTS'\n{self._words(step.text)}\n;\nSTATEMENTS"
        assert step.language == "sh", f"line {step.line}: nobody types {step.language!r}; write sh, sql or text"
        return self._words(step.text)

    def _words(self, text: str) -> str:
        spoken = re.compile("|".join(map(re.escape, self.bound)))
        return PLACES.sub(rf"{self.root}/\1/", spoken.sub(lambda word: self.bound[word[0]], text))

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("LABLINK", "PG"))}
        own = {"PATH": f"{self.root}/bin:{PATH}", "PYTHONPATH": str(ROOT), "ROOT": str(self.root)}
        return inherited | own | {"NO_COLOR": "1", "COLUMNS": "250"} | self.environment


def shows(printed: str, seen: str) -> bool:
    """Whether what the document shows was printed: `…` stands for anything, spaces for spaces."""
    pattern = r"\s+".join(".*?".join(map(re.escape, word.split("…"))) for word in seen.split())
    return re.search(pattern, printed, re.DOTALL) is not None
