"""Where `lablink db move` goes: the new server's superuser is pointed to, and everything else follows from that."""

import re
from collections.abc import Sequence
from pathlib import Path

from allocator.cli.database import settings_place
from allocator.cli.db.deploy import passwords
from allocator.cli.db.superusers import NO_CONNECTION_STRING, Superuser, pointed_to
from allocator.cli.failures import Misused
from allocator.conf_files import override
from allocator.config import load_settings
from allocator.logins import dsn
from allocator.upkeep.target import Target
from client.network import is_loopback


async def target_of(reference: str, data_dir: Path | None, settings: Sequence[str]) -> tuple[Target, list[str]]:
    """Where it goes, and the settings that lead there. Raises CommandFailed, SecretMissing, ConfigError."""
    given = await pointed_to(reference, "--to")
    if not given.host:
        raise Misused(NO_CONNECTION_STRING.format(reference))
    there = _settings(given.host, given)
    database = load_settings([*settings, *there], settings_place(data_dir, settings)).database
    return Target(given.dsn(database), await dsn(database, database.owner), await passwords(database)), there


def _settings(host: str, given: Superuser) -> list[str]:
    """The authority is the connection string's `sslrootcert`; without one, that of the settings stays."""
    tls = "loopback" if is_loopback(host) and given.options.get("sslmode") != "verify-full" else "verify-full"
    there = [_setting("database.host", host), f"database.port={given.port or 5432}", f"database.tls={tls}"]
    authority = given.options.get("sslrootcert")
    return [*there, _setting("database.ca_file", authority)] if authority else there


def _setting(key: str, value: str) -> str:
    """For an admin to type: quoted only where it must be."""
    return f"{key}={value}" if re.fullmatch(r"[A-Za-z0-9._/-]+", value) else override(key, value)
