"""Lets machines in: with their join token, and on EC2 with the identity that AWS has signed."""

from dataclasses import dataclass, field

import structlog

from allocator import config
from allocator.errors import JoinRefused
from allocator.fleet.identity import Clouds, identified
from allocator.store import Store
from allocator.views import Enrolled

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Applicant:
    """What a machine sends that wants to be let in; `identity` is a signed document and its signature."""

    token: str = field(repr=False)
    verifier: str = field(repr=False)
    identity: tuple[str, str] | None = None
    hub_sha256: bytes | None = None


async def let_in(store: Store, rules: config.Identity, clouds: Clouds, applicant: Applicant) -> Enrolled:
    """Let a machine in. Raises JoinRefused, which is written down if somebody had a token of ours; and CloudAway.

    EC2 is asked only about who has a token that is open: anybody on a machine can show its identity without end.
    """
    instance = None
    try:
        if not rules.fleet:
            return await store.enrol_vm(applicant.token, applicant.verifier, applicant.hub_sha256)
        if applicant.identity and await store.is_open(applicant.token):
            instance = await identified(*applicant.identity, rules, clouds)
        return await store.enrol_instance(applicant.token, applicant.verifier, applicant.hub_sha256, instance)
    except JoinRefused as refused:
        named = instance.id if instance else None
        log.warning("vm.refused", instance=named, why=str(refused))
        await store.note_refused_join(applicant.token, named, str(refused))
        raise
