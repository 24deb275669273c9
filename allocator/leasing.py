"""Opens a lease for whoever asks, over the API or with the form: checked, repeatable, and never for somebody else."""

import dataclasses
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from allocator.errors import CommandNotAccepted, InvalidRequest, LeaseLive, NoSuchLease
from allocator.metrics import Metrics
from allocator.store import Store
from allocator.tokens import key_sha256, lease_token, new_key, new_salt, request_sha256
from allocator.views import Accepted, HeldLease, Outcome
from client.command import Accepts, Command, CommandRefused, DesktopCommand, parse, pin_of

EMAIL_LENGTH = 254
LOCAL_LENGTH = 64
KEY_LENGTH = 255

# Letters of no address that anybody has, and with which one address could look like another.
ODD_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp")
ODD_LETTERS = frozenset('"(),:;<>[]\\')


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What somebody asks for, as it came in. `tokens` are those that they hold already."""

    email: str
    crd_command: str = field(repr=False)
    pool: str
    key: str | None = field(default=None, repr=False)
    tokens: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """The lease that answers a request; `outcome` tells whether it was there before."""

    held: HeldLease
    outcome: Outcome


async def open_lease(store: Store, metrics: Metrics, request: LeaseRequest) -> Opened:
    """Open a lease, or give back the one that this request (by its key) or this person (by a token) has already.

    Raises InvalidRequest, NoSuchPool, CommandNotAccepted, KeyReused, LeaseLive.
    """
    email = checked_email(request.email)
    key = checked_key(request.key) if request.key is not None else None
    command = _accepted(request.crd_command, (await store.pool_rules(request.pool)).accepts)
    accepted, token = await _request_vm(store, metrics, request, email, command, key)
    metrics.requested(accepted.outcome)
    if accepted.outcome == "live":
        return await _own_live_lease(store, accepted, request.tokens)
    return Opened(await store.held_lease(accepted.lease_id, [token]), accepted.outcome)


async def _request_vm(
    store: Store, metrics: Metrics, request: LeaseRequest, email: str, command: Command, key: str | None
) -> tuple[Accepted, str]:
    secret, salt = key or new_key(), new_salt()
    token = lease_token(secret, salt)
    with metrics.claim_timer():
        accepted = await store.request_vm(
            email,
            with_pin(command, token),
            shown=command,
            token=token,
            token_salt=salt,
            idempotency_sha256=key_sha256(email, key) if key else None,
            request_sha256=request_sha256(key, email.lower(), request.crd_command, request.pool) if key else None,
            pool=request.pool,
        )
    return accepted, lease_token(secret, accepted.token_salt) if accepted.token_salt else token


async def _own_live_lease(store: Store, accepted: Accepted, tokens: Sequence[str]) -> Opened:
    try:
        return Opened(await store.held_lease(accepted.lease_id, tokens), "live")
    except NoSuchLease:
        raise LeaseLive from None


def with_pin(command: Command, token: str) -> Command:
    """The command with a PIN, which start-host insists on: the one that its line brings, else the one of the token."""
    if isinstance(command, DesktopCommand) and command.pin is None:
        return dataclasses.replace(command, pin=pin_of(token))
    return command


def checked_email(text: str) -> str:
    """The address without spaces around it and with its domain in lower case. Raises InvalidRequest."""
    address = unicodedata.normalize("NFC", text.strip())
    if not address:
        _refuse_email("Your e-mail address is missing.")
    if len(address) > EMAIL_LENGTH:
        _refuse_email(f"An e-mail address has at most {EMAIL_LENGTH} characters.")
    if any(unicodedata.category(letter) in ODD_CATEGORIES or letter in ODD_LETTERS for letter in address):
        _refuse_email("An e-mail address has no spaces, quotes, brackets, commas or invisible characters.")
    local, at, domain = address.partition("@")
    if not at or "@" in domain:
        _refuse_email("An e-mail address has one @, as in name@example.org.")
    if not 0 < len(local) <= LOCAL_LENGTH or not _is_dotted(local):
        _refuse_email("The part before the @ is not right.")
    if "." not in domain or not _is_dotted(domain):
        _refuse_email("The part after the @ must be a domain, as in name@example.org.")
    return f"{local}@{domain.lower()}"


def checked_key(key: str) -> str:
    """An Idempotency-Key as it was sent. Raises InvalidRequest."""
    if not 0 < len(key) <= KEY_LENGTH or not key.isascii() or not key.isprintable():
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {KEY_LENGTH} printable ASCII characters; a random UUID is best.",
            field="Idempotency-Key",
        )
    return key


def _is_dotted(text: str) -> bool:
    return all(text.split("."))


def _accepted(line: str, accepts: Accepts) -> Command:
    try:
        return parse(line, accepts)
    except CommandRefused as refused:
        raise CommandNotAccepted(str(refused)) from None


def _refuse_email(message: str) -> NoReturn:
    raise InvalidRequest(message, field="email")
