"""What a VM's client is told: the state directory's files, as typed values."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from client.boot import BOOT_ID
from client.protocol import DatabaseAddress

CHECKS = Path("/etc/lablink/checks.d")
LEAST_FREE_MB = 256
START_HOST = "/opt/google/chrome-remote-desktop/start-host"
_ENVIRONMENT = "LABLINK_"
_PATHS = {"join_token_file", "helper", "phases", "boot_id", "checks"}


class SettingsError(Exception):
    """A file in the state directory says something impossible. The message says which, and what to do."""


@dataclass(frozen=True, slots=True)
class StateDir:
    """Where the client keeps what it must remember; it survives restarts of the machine."""

    root: Path

    @property
    def lock(self) -> Path:
        """Locked by the one client that runs."""
        return self.root / "lock"

    @property
    def settings(self) -> Path:
        """Written by whoever set up the machine."""
        return self.root / "settings.json"

    @property
    def enrolment(self) -> Path:
        """The password of an enrolment that has not been answered yet."""
        return self.root / "enrolment.json"

    @property
    def credential(self) -> Path:
        """Who this machine is to the allocator. Secret."""
        return self.root / "credential.json"

    @property
    def rotation(self) -> Path:
        """The password that may have taken the place of the credential's. Secret."""
        return self.root / "rotation.json"

    @property
    def journal(self) -> Path:
        """What was started on this machine."""
        return self.root / "journal"

    @property
    def session(self) -> Path:
        """The leased command's directory, which a wipe empties."""
        return self.root / "session"


@dataclass(frozen=True, slots=True)
class Settings:
    """What is set per machine, in settings.json or as LABLINK_<NAME> in the environment, which wins."""

    allocator_url: str | None = None
    join_token_file: Path | None = None
    join_secret: str | None = None
    """Name or ARN of the secret that an EC2 instance's join token is in."""
    start_host: str = START_HOST
    session_user: str | None = None
    helper: Path | None = None
    """Socket of the helper that runs commands; None: this process runs them."""
    phases: Path | None = None
    """Where the machine's first boot wrote when its phases began."""
    boot_id: Path = BOOT_ID
    """The name of this boot. A container has to make one for each of its starts, which the kernel does not count."""
    checks: Path = CHECKS
    """A directory with programs that say whether the machine is well."""
    least_free_mb: int = LEAST_FREE_MB
    """So much must be free on its disk before it is lent."""


@dataclass(frozen=True, slots=True)
class DatabaseLogin(DatabaseAddress):
    """What enrolment says of the database, and the password that this machine made for it."""

    password: str = field(repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Credential:
    """What enrolment gave the machine, and its password."""

    vm_id: int
    hostname: str
    transport: str
    database: DatabaseLogin
    allocator_url: str | None = None
    """Where it enrolled: the hub is there, unless the settings name another place. None in an earlier client's."""


def load_settings(path: Path, environment: Mapping[str, str] = os.environ) -> Settings:
    """The machine's settings; a missing file means the defaults. Raises SettingsError, also for an unknown key."""
    given = _object(path) if path.exists() else {}
    known = {known.name for known in fields(Settings)}
    if unknown := sorted(given.keys() - known):
        raise SettingsError(f"{path}: there is no setting {unknown[0]!r}. Known are {', '.join(sorted(known))}.")
    given |= {name: environment[key] for name in known if (key := _ENVIRONMENT + name.upper()) in environment}
    for name, value in given.items():
        if not isinstance(value, str | None):
            raise SettingsError(f"{path}: {name} must be text.")
    given = {name: value for name, value in given.items() if value}
    if not (least := given.get("least_free_mb", "0")).isdecimal():
        raise SettingsError(f"{path}: least_free_mb must be a number, in quotes, and not {least!r}.")
    if "least_free_mb" in given:
        given["least_free_mb"] = int(least)
    return Settings(**given | {name: path.parent / given[name] for name in _PATHS & given.keys()})


def load_credential(path: Path) -> Credential:
    """Who this machine is. Raises SettingsError when the file is not what enrolment wrote."""
    given = _object(path)
    try:
        return Credential(**given | {"database": DatabaseLogin(**given["database"])})
    except (TypeError, KeyError) as error:
        raise SettingsError(f"{path} is not a credential. Remove it and enrol the machine again.") from error


def _object(path: Path) -> dict[str, Any]:
    try:
        given = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path} cannot be read: {error}. Mend or remove it.") from error
    if not isinstance(given, dict):
        raise SettingsError(f"{path} must hold a JSON object.")
    return given
