"""What is made of a machine's password, which never leaves the VM: its verifier for PostgreSQL, the hub's token."""

import hashlib
import hmac
import secrets
from base64 import b64encode

ITERATIONS = 4096


def new_password() -> str:
    """256 random bits as ASCII, which SASLprep leaves as they are."""
    return secrets.token_hex(32)


def verifier(password: str, salt: bytes | None = None, iterations: int = ITERATIONS) -> str:
    """What `ALTER ROLE … PASSWORD` takes for an ASCII password (RFC 5803; PostgreSQL's src/common/scram-common.c)."""
    salt = salt or secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, iterations)
    stored_key = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    return f"SCRAM-SHA-256${iterations}:{_text(salt)}${_text(stored_key)}:{_text(server_key)}"


def hub_token(password: str) -> str:
    """What the machine shows to the hub. Whoever reads it there cannot log in to PostgreSQL with it."""
    return hmac.digest(password.encode("ascii"), b"lablink hub token", "sha256").hex()


def hub_sha256(password: str) -> bytes:
    """All that is kept of that token elsewhere."""
    return hashlib.sha256(hub_token(password).encode()).digest()


def _text(data: bytes) -> str:
    return b64encode(data).decode()
