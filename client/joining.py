"""How a machine comes by its credential when it starts: with a token in a file, or on EC2 with one in a secret."""

import logging
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from client.enrol import AllocatorAway, EnrolmentError, Invitation, TokenRefused, discard, enrol
from client.settings import Credential, Settings, StateDir, load_credential
from client.transport import Backoff

log = logging.getLogger("lablink.client")


class NotEnrolled(Exception):
    """There is no credential here, and no join token to get one with."""


def credential_of(state: StateDir, settings: Settings, pause: Callable[[float], None] = time.sleep) -> Credential:
    """Who this machine is. Whoever put a join token there wants it to enrol, also when it has been somebody before.

    Raises NotEnrolled, EnrolmentError, SettingsError.
    """
    known = state.credential.exists()
    if settings.allocator_url and settings.join_token_file and settings.join_token_file.exists():
        try:
            return join(state, invitation_from(settings.allocator_url, settings.join_token_file), once=known)
        except TokenRefused as refused:
            discard(state, settings.join_token_file)
            if not known:
                raise
            log.warning("join token thrown away", extra={"reason": str(refused)})
        except AllocatorAway as away:
            log.warning("join token left for later", extra={"reason": str(away)})
    if known:
        return load_credential(state.credential)
    if settings.allocator_url and settings.join_secret:
        return _join_on_ec2(state, settings.allocator_url, settings.join_secret, pause)
    raise NotEnrolled("This machine is not enrolled and has no join token. Invite it: lablink vms invite HOSTNAME.")


def join(state: StateDir, invitation: Invitation, *, once: bool = False) -> Credential:
    """Enrol, and say so. Raises EnrolmentError."""
    credential = enrol(state, invitation, _say, once=once)
    log.info("enrolled", extra={"vm": credential.vm_id, "hostname": credential.hostname})
    return credential


def invitation_from(url: str, file: Path) -> Invitation:
    """An invitation whose token is in a file. Raises EnrolmentError."""
    try:
        return Invitation(url, file.read_text().strip(), file)
    except OSError as error:
        raise EnrolmentError(f"The join token cannot be read from {file}: {error.strerror}.") from error


def _join_on_ec2(state: StateDir, url: str, secret: str, pause: Callable[[float], None]) -> Credential:
    """Enrol with the secret's token and the instance's identity, as soon as both are there.

    A token that was refused is not shown again: the allocator puts a new one there when it invites the machine anew.
    """
    from client.ec2 import AwsAway

    refused, said = "", ""
    backoff = Backoff(first=1.0, ceiling=30.0)
    while True:
        try:
            invitation = _invitation_of_instance(url, secret)
            if invitation.token != refused:
                return join(state, invitation)
            words = "The secret holds no new join token yet."
        except AwsAway as away:
            words = f"{away}. Trying again until it does."
        except TokenRefused as error:
            refused, words = invitation.token, str(error)
            discard(state)
        if words != said:
            _say(said := words)
        pause(backoff.delay())


def _invitation_of_instance(url: str, secret: str) -> Invitation:
    from client.ec2 import Metadata, join_token

    metadata = Metadata.opened()
    identity = metadata.identity()
    token = join_token(secret, identity.claim("region"), metadata.keys())
    return Invitation(url, token, identity=identity.as_fields())


def started_at(settings: Settings) -> datetime | None:
    """When EC2 started this instance, if it is one that was set up so and says it."""
    from client.ec2 import AwsAway, Metadata

    if settings.join_secret is None:
        return None
    try:
        return datetime.fromisoformat(Metadata.opened().identity().claim("pendingTime"))
    except (AwsAway, ValueError):
        return None


def _say(words: str) -> None:
    log.warning("waiting", extra={"reason": words})
