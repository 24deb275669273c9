"""The right to come back to a lease: a token that its holder keeps and of which the database knows only a hash."""

import hashlib
import hmac
import json
import secrets
from base64 import urlsafe_b64encode

SALT_BYTES = 32


def sha256(token: str) -> bytes:
    """What is stored of a token, and looked up by."""
    return hashlib.sha256(token.encode()).digest()


def new_salt() -> bytes:
    """Random bytes that make the token of one lease."""
    return secrets.token_bytes(SALT_BYTES)


def new_key() -> str:
    """An Idempotency-Key for a request that brought none: nobody else can know it."""
    return secrets.token_urlsafe(32)


def lease_token(key: str, salt: bytes) -> str:
    """The token of the lease that was opened with this key: the same again for whoever repeats the key.

    So an answer that was lost can be given again although only a hash of the token is stored.
    """
    return urlsafe_b64encode(hmac.digest(key.encode(), salt, hashlib.sha256)).rstrip(b"=").decode()


def key_sha256(email: str, key: str) -> bytes:
    """What a repeated request is recognised by: one person's key says nothing about another's."""
    return hashlib.sha256(f"{email.lower()}\n{key}".encode()).digest()


def request_sha256(key: str, *fields: str) -> bytes:
    """What tells whether a repeated request is the same. Keyed, because a PIN could be guessed from a plain hash."""
    return hmac.digest(key.encode(), json.dumps(fields).encode(), hashlib.sha256)


def pin_of(token: str) -> str:
    """Eight digits that only the holder of a lease's token can work out again, for a desktop line without `--pin`.

    Nobody has to store it: whoever shows the token is shown the PIN. Without any PIN `start-host` prompts for one.
    """
    digest = hmac.digest(token.encode(), b"lablink desktop pin", hashlib.sha256)
    return f"{int.from_bytes(digest) % 10**8:08d}"
