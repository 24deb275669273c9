"""Settings of a service that has a fleet, and an admin who comes to it over HTTP."""

import hashlib
import json
from pathlib import Path

import asyncpg

from tests.support.database import PASSWORDS

NAME = "lablink-test"
TOKEN = "a-token-of-ada"
ADMIN = {"Authorization": f"Bearer {TOKEN}"}
"""The headers with which Ada comes, once she is an admin."""


def fleet_without_cloud(directory: Path) -> list[str]:
    """Settings of a fleet whose cloud nobody can reach: whatever asks it fails."""
    told = {"name": NAME, "defaults": {"ami_id": "ami-01234567"}}
    (directory / "fleet.json").write_text(
        json.dumps({"backend": {}, "variables": {"region": "nowhere-1", "settings": told}})
    )
    return [
        "fleet=aws",
        f"fleet.settings={directory / 'fleet.json'}",
        f"fleet.work={directory / 'work'}",
        "fleet.period_seconds=3600",
        "fleet.prices={t3.large: 0.1}",
    ]


def owner_password(directory: Path) -> str:
    """The setting with which the service may connect as the owner."""
    (directory / "owner-password").write_text(PASSWORDS["lablink"])
    return f"database.owner.password='file:{directory / 'owner-password'}'"


async def admin(owner: asyncpg.Connection, name: str = "ada", token: str = TOKEN) -> dict[str, str]:
    """Make somebody an admin; returns the headers with which they come."""
    await owner.execute("SELECT add_admin($1, $2, 1)", name, hashlib.sha256(token.encode()).digest())
    return {"Authorization": f"Bearer {token}"}
