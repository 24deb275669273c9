"""Opens a lease for whoever asks, over the API or with the form: checked, repeatable, and never for somebody else."""

import dataclasses
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from uuid import UUID

import structlog

from allocator.checking import checked, checked_key, checked_line
from allocator.errors import BudgetSpent, InvalidRequest, LeaseLive, NoSuchLease, NoSuchPool
from allocator.join_codes import code_sha256
from allocator.metrics import Metrics
from allocator.pool_views import PoolRules
from allocator.requesting import VmRequest
from allocator.store import Store
from allocator.tokens import key_sha256, lease_token, new_key, new_salt, pin_of, request_sha256
from allocator.views import Accepted, HeldLease, RequestOutcome
from client.command import Accepts, Command, DesktopCommand

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """What somebody asks for, as it came in; `domains` are those whose addresses may ask, any if there are none.

    Without a command it is for a desktop, whose line is asked for when the machine is there. `tokens` are those that
    they hold already; `join_code` makes them a member of a group.
    """

    email: str
    crd_command: str | None = field(repr=False)
    pool: str
    domains: Sequence[str]
    key: str | None = field(default=None, repr=False)
    tokens: Sequence[str] = field(default=(), repr=False)
    join_code: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Opened:
    """The lease that answers a request, and its token; `outcome` tells whether it was there before."""

    lease_id: UUID
    token: str = field(repr=False)
    outcome: RequestOutcome


async def open_lease(store: Store, metrics: Metrics, request: LeaseRequest) -> Opened:
    """Open a lease, or give back the one that this request (by its key) or this person (by a token) has already.

    Raises InvalidRequest (also CommandNotAccepted), NoSuchPool, KeyReused, LeaseLive, JoinCodeRefused, MembersOnly,
    BudgetSpent.
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
        kind = command.kind if command else "desktop"
        log.info("lease.opened", lease=str(accepted.lease_id), status=status, kind=kind, pool=request.pool)
    return Opened(accepted.lease_id, token, accepted.outcome)


async def renew_line(store: Store, held: HeldLease, line: str) -> None:
    """Go on with a fresh line, which its holder was asked for. Raises InvalidRequest, NothingAsked."""
    command = checked_line(line, Accepts(desktop=True, programs=()))
    await store.renew_line(held.lease.id, with_pin(command, held.token), command)
    log.info("lease.renewed", lease=str(held.lease.id))


async def extend(store: Store, lease_id: UUID) -> None:
    """Make a lease a step longer because its holder says so. Raises NotLonger, BudgetSpent."""
    await store.extend_lease(lease_id)
    log.info("lease.extended", lease=str(lease_id))


async def give_back(store: Store, lease_id: UUID) -> None:
    """End a lease because its holder says so; one that is over stays as it is."""
    await store.end_lease(lease_id)
    log.info("lease.ended", lease=str(lease_id), by="holder")


async def _request_vm(
    store: Store, metrics: Metrics, request: LeaseRequest, email: str, command: Command | None
) -> tuple[Accepted, str]:
    key = request.key
    secret, salt = key or new_key(), new_salt()
    token = lease_token(secret, salt)
    asked = VmRequest(
        email,
        with_pin(command, token) if command else None,
        shown=command,
        token=token,
        token_salt=salt,
        idempotency_sha256=key_sha256(email, key) if key else None,
        request_sha256=request_sha256(key, email.lower(), request.crd_command or "", request.pool) if key else None,
        pool=request.pool,
        join_sha256=code_sha256(request.join_code) if request.join_code else None,
    )
    try:
        with metrics.request_timer():
            accepted = await store.request_vm(asked)
    except BudgetSpent:
        raise BudgetSpent(await store.budget_in_words(request.pool)) from None
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
