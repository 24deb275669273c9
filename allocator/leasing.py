"""Opens a lease for whoever asks, over the API or with the form: checked, repeatable, and never for somebody else."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from allocator.checking import checked, checked_key
from allocator.errors import InvalidRequest, LeaseLive, NoSuchLease, NoSuchPool
from allocator.metrics import Metrics
from allocator.requesting import VmRequest
from allocator.store import Store
from allocator.tokens import key_sha256, lease_token, new_key, new_salt, pin_of, request_sha256
from allocator.views import Accepted, HeldLease, PoolRules, RequestOutcome
from client.command import Command, DesktopCommand

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What somebody asks for, as it came in; `domains` are those whose addresses may ask, any if there are none.

    `tokens` are those that they hold already.
    """

    email: str
    crd_command: str = field(repr=False)
    pool: str
    domains: Sequence[str]
    key: str | None = field(default=None, repr=False)
    tokens: Sequence[str] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """The lease that answers a request, and its token; `outcome` tells whether it was there before."""

    lease_id: UUID
    token: str = field(repr=False)
    outcome: RequestOutcome


async def open_lease(store: Store, metrics: Metrics, request: LeaseRequest) -> Opened:
    """Open a lease, or give back the one that this request (by its key) or this person (by a token) has already.

    Raises InvalidRequest (also CommandNotAccepted), NoSuchPool, KeyReused, LeaseLive.
    """
    if request.key is not None:
        checked_key(request.key)
    if (remembered := store.remembered_rules(request.pool)) is not None:
        with suppress(InvalidRequest, NoSuchPool):  # nobody is refused because of what is old
            return await _open_lease(store, metrics, request, remembered)
    return await _open_lease(store, metrics, request, await store.pool_rules(request.pool))


async def _open_lease(store: Store, metrics: Metrics, request: LeaseRequest, rules: PoolRules) -> Opened:
    email, command = checked(request.email, request.domains, request.crd_command, rules.accepts)
    accepted, token = await _request_vm(store, metrics, request, email, command)
    metrics.requested(accepted.outcome)
    if accepted.outcome == "live":
        return await _own_live_lease(store, accepted, request.tokens)
    if accepted.outcome == "created":
        status = "queued" if accepted.vm_id is None else "assigned"
        log.info("lease.opened", lease=str(accepted.lease_id), status=status, kind=command.kind, pool=request.pool)
    return Opened(accepted.lease_id, token, accepted.outcome)


async def give_back(store: Store, lease_id: UUID) -> None:
    """End a lease because its holder says so; one that is over stays as it is."""
    await store.end_lease(lease_id)
    log.info("lease.ended", lease=str(lease_id), by="holder")


async def _request_vm(
    store: Store, metrics: Metrics, request: LeaseRequest, email: str, command: Command
) -> tuple[Accepted, str]:
    key = request.key
    secret, salt = key or new_key(), new_salt()
    token = lease_token(secret, salt)
    with metrics.request_timer():
        accepted = await store.request_vm(
            VmRequest(
                email,
                with_pin(command, token),
                shown=command,
                token=token,
                token_salt=salt,
                idempotency_sha256=key_sha256(email, key) if key else None,
                request_sha256=request_sha256(key, email.lower(), request.crd_command, request.pool) if key else None,
                pool=request.pool,
            )
        )
    return accepted, lease_token(secret, accepted.token_salt) if accepted.token_salt else token


async def _own_live_lease(store: Store, accepted: Accepted, tokens: Sequence[str]) -> Opened:
    try:
        held = await store.held_lease(accepted.lease_id, tokens)
    except NoSuchLease:
        raise LeaseLive from None
    return Opened(accepted.lease_id, held.token, "live")


def with_pin(command: Command, token: str) -> Command:
    """The command with a PIN, which start-host insists on: the one that its line brings, else the one of the token."""
    if isinstance(command, DesktopCommand) and command.pin is None:
        return dataclasses.replace(command, pin=pin_of(token))
    return command


def own_pin(held: HeldLease) -> str | None:
    """The PIN that we made for a desktop whose line had none; None when there is no such PIN or not yet."""
    lease = held.lease
    ours = lease.kind == "desktop" and "--pin" not in (lease.crd_command or "")
    return pin_of(held.token) if ours and lease.status == "active" else None
