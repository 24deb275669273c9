"""Codes with which people join a group: short enough for a whiteboard, too many to guess; kept as hashes."""

import re
import secrets

from allocator.tokens import sha256

LETTERS = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"
"""Without those that are taken for another: 0 and O, 1 and I."""

BLOCKS, BLOCK = 3, 4
"""Twelve letters of 32 are 60 bits."""


def new_code() -> str:
    """A code that nobody knows yet: K7MP-3XQ2-9RTW."""
    return "-".join("".join(secrets.choice(LETTERS) for _ in range(BLOCK)) for _ in range(BLOCKS))


def plain(code: str) -> str:
    """The code, however it was typed: in small letters, with or without hyphens."""
    return re.sub(r"[\s-]", "", code).upper()


def code_sha256(code: str) -> bytes:
    """What is kept of a code and looked up by."""
    return sha256(plain(code))


def join_link(url: str, code: str) -> str:
    """The page of the service at `url` with the code in its field; a fragment is in no log, for it is never sent."""
    return f"{url}/#join={code}"
