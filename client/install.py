"""Makes a machine one to lend: accounts, settings and systemd's units, so that the client has no rights on it.

What it writes, below `root`: /etc/lablink/client.json, /etc/sysusers.d/lablink.conf, the units of client/units in
/etc/systemd/system, and in /var/lib/lablink the client's own directory and, now and then, a person's session.
"""

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from client import durable
from client.enrol import require_private
from client.session import Account

CLIENT_USER = "lablink"
UNITS = Path(__file__).with_name("units")
ENABLED = ("lablink-helper.socket", "lablink-client.service")
HELPER = "/run/lablink/helper.sock"
STATE = "/var/lib/lablink"

_ACCOUNT = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
_SECRET = re.compile(r"[A-Za-z0-9/_+=.@:-]{1,512}")
_CLOSED = ("/home", "/root", "/run/user", "/tmp", "/var/tmp")  # noqa: S108  # to the client's unit
_SYSUSERS = """u {client} - "LabLink's client" {state}/client
u {session} - "Whoever has this machine" {state}/session /bin/bash
"""


class InstallError(Exception):
    """The machine cannot be set up so. The message says what to do."""


@dataclass(frozen=True, slots=True)
class Installation:
    """What a machine is told: where the allocator is, where its join token is, and whom people's commands run as."""

    url: str
    join_secret: str | None = None
    token_file: Path | None = None
    session_user: str = "labuser"
    start_host: str | None = None
    root: Path = Path("/")

    def install(self) -> None:
        """Set the machine up and start its client; may be repeated. Raises InstallError and others."""
        self._check()
        self._add_accounts()
        self._make_directories()
        self._write("etc/lablink/client.json", json.dumps(self._settings(), indent=1) + "\n")
        for unit in UNITS.iterdir():
            self._write(f"etc/systemd/system/{unit.name}", unit.read_text().replace("@BIN@", str(_programs())))
        self._take_token()
        self._start()

    def _check(self) -> None:
        require_private(self.url)
        if os.geteuid() != 0:
            raise InstallError("Only root can set up a machine: use sudo.")
        if not _ACCOUNT.fullmatch(self.session_user) or self.session_user in ("root", CLIENT_USER):
            raise InstallError(
                f"{self.session_user!r} cannot be the account of people's commands: name one of its own."
            )
        if self.join_secret is not None and not _SECRET.fullmatch(self.join_secret):
            raise InstallError("--join-secret is the name or the ARN of a secret in AWS Secrets Manager.")
        if self._is_real and str(_programs()).startswith(tuple(f"{place}/" for place in _CLOSED)):
            raise InstallError(f"The client's account cannot reach {_programs()}: install LabLink in /opt/lablink.")

    @property
    def _is_real(self) -> bool:
        return self.root == Path("/")

    def _settings(self) -> dict[str, str]:
        given = {
            "allocator_url": self.url,
            "join_secret": self.join_secret,
            "join_token_file": None if self.join_secret else f"{STATE}/client/join-token",
            "session_user": self.session_user,
            "start_host": self.start_host,
            "helper": HELPER,
            "phases": f"{STATE}/phases",
        }
        return {name: value for name, value in given.items() if value}

    def _add_accounts(self) -> None:
        """By systemd's own means, which leave accounts alone that are there."""
        words = _SYSUSERS.format(client=CLIENT_USER, session=self.session_user, state=STATE)
        file = self._write("etc/sysusers.d/lablink.conf", words)
        _run("systemd-sysusers", *self._below(), str(file))
        if self._is_real:
            Account.named(self.session_user, Path(STATE, "session"))

    def _make_directories(self) -> None:
        state, own = self._at(STATE), self._at(f"{STATE}/client")
        state.mkdir(parents=True, exist_ok=True)
        state.chmod(0o711)  # sessions are below it, and the account of neither sees what is beside its own
        own.mkdir(exist_ok=True)
        own.chmod(0o700)
        os.chown(own, *self._client_ids())

    def _take_token(self) -> None:
        """Move the join token to where the client finds it, and nobody else."""
        if self.token_file is None:
            return
        taken = self._at(f"{STATE}/client/join-token")
        try:
            durable.replace(taken, self.token_file.read_bytes(), self._client_ids())
        except OSError as error:
            raise InstallError(f"The join token cannot be read from {self.token_file}: {error.strerror}.") from error
        if self.token_file.is_file():
            self.token_file.unlink()

    def _client_ids(self) -> tuple[int, int]:
        for line in self._at("/etc/passwd").read_text().splitlines():
            if line.startswith(f"{CLIENT_USER}:"):
                _, _, uid, gid, *_ = line.split(":")
                return int(uid), int(gid)
        raise InstallError(f"systemd-sysusers made no account {CLIENT_USER}.")

    def _start(self) -> None:
        """Have systemd start the client now and at every boot. It is not waited for: the allocator may be away."""
        _run("systemctl", *self._below(), "enable", "--quiet", *ENABLED)
        if self._is_real:
            _run("systemctl", "daemon-reload")
            _run("systemctl", "restart", "--no-block", *ENABLED)

    def _below(self) -> list[str]:
        return [] if self._is_real else [f"--root={self.root}"]

    def _at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def _write(self, path: str, words: str) -> Path:
        file = self._at(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        durable.replace(file, words.encode())
        file.chmod(0o644)
        return file


def _programs() -> Path:
    """The directory of the Python that runs this, and of `lablink-client` with it."""
    return Path(sys.executable).parent


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallError(f"{command[0]} did not do its part: {error}. A machine to lend needs systemd.") from error
