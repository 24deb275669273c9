"""How a machine becomes one of the pool: it shows its join token once, and keeps a password that only it knows.

The password is on the disk before anything is sent, and only its verifier is sent; so an enrolment whose answer was
lost is simply repeated, with the same words, and gets the same answer.
"""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from client import durable
from client.journal import Journal
from client.network import is_loopback, tls_of
from client.protocol import HUB_HEADER, DatabaseAddress
from client.scram import hub_sha256, new_password, verifier
from client.settings import Credential, DatabaseLogin, StateDir
from client.transport import Backoff

_ANSWER_BYTES = 1_000_000
_LIMIT_SECONDS = 10


class EnrolmentError(Exception):
    """The machine could not be enrolled. The message says why and what to do."""


class TokenRefused(EnrolmentError):
    """The join token is unknown, used or expired: only an admin can help."""


class AllocatorAway(EnrolmentError):
    """The allocator does not answer, or not sensibly: it may answer later."""


@dataclass(frozen=True, slots=True)
class Invitation:
    """Where to enrol and the join token to show there; `token_file` goes once the token has done its work.

    `identity` is what EC2 has signed of the machine, as `client.ec2.Identity` has it.
    """

    allocator_url: str
    token: str
    token_file: Path | None = None
    identity: Mapping[str, str] | None = None


def enrol(state: StateDir, invitation: Invitation, notice: Callable[[str], None], *, once: bool = False) -> Credential:
    """Enrol this machine, trying until the allocator answers. Raises EnrolmentError when trying again cannot help.

    `once`: one try only, after which AllocatorAway is raised too; for a machine that can serve with what it has.
    `notice` is told, once, that the allocator is away.
    """
    require_private(invitation.allocator_url)
    password = _durable_password(state)
    request: dict[str, Any] = {"token": invitation.token, "verifier": password["verifier"]}
    if invitation.identity:
        request["identity"] = dict(invitation.identity)
    shown = {HUB_HEADER: hub_sha256(password["password"]).hex()}
    answer = _answer(invitation.allocator_url, request, shown, notice, once=once)
    credential = replace(_credential(answer, password["password"]), allocator_url=invitation.allocator_url)
    tls_of(credential.database)
    Journal.create(state.journal)
    durable.remove(state.rotation)
    durable.replace(state.credential, json.dumps(asdict(credential), indent=1).encode())
    if invitation.token_file is not None:
        _remove_token(invitation.token_file)
    durable.remove(state.enrolment)  # last: as long as the token is there, it is shown with the same verifier
    return credential


def discard(state: StateDir, token_file: Path | None = None) -> None:
    """Throw away a token that was refused, and the password that was meant to go with it."""
    if token_file is not None:
        _remove_token(token_file)
    durable.remove(state.enrolment)


def forget(state: StateDir) -> None:
    """Be nobody again. The journal goes first: a credential without a journal trusts nothing on the machine."""
    durable.remove(state.journal)
    durable.remove(state.enrolment)
    durable.remove(state.rotation)
    durable.remove(state.credential)


def _remove_token(file: Path) -> None:
    """Only a plain file goes: /dev/stdin and the like are not ours, and root could remove them."""
    if file.is_file() and not file.is_symlink():
        durable.remove(file)


def _durable_password(state: StateDir) -> dict[str, str]:
    """The password of an enrolment that was begun, else a new one, which is on the disk now."""
    if not state.enrolment.exists():
        password = new_password()
        begun = {"password": password, "verifier": verifier(password)}
        durable.replace(state.enrolment, json.dumps(begun).encode())
    kept: dict[str, str] = json.loads(state.enrolment.read_text())
    return kept


def _answer(
    url: str, request: dict[str, Any], shown: dict[str, str], notice: Callable[[str], None], *, once: bool
) -> dict[str, Any]:
    backoff = Backoff(ceiling=15.0)
    while True:
        try:
            return _post(f"{url.rstrip('/')}/api/v1/enrolments", request, shown)
        except AllocatorAway as away:
            if once:
                raise
            notice(str(away))
            notice = _silent
            time.sleep(backoff.delay())


def _post(url: str, request: dict[str, Any], shown: dict[str, str]) -> dict[str, Any]:
    """One try. urllib and what it needs are loaded here: a machine that is enrolled never pays for them."""
    from http.client import HTTPException
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    headers = {"Content-Type": "application/json", "Accept": "application/json", **shown}
    try:
        with urlopen(Request(url, json.dumps(request).encode(), headers), timeout=_LIMIT_SECONDS) as answer:
            given = json.loads(answer.read(_ANSWER_BYTES))
    except HTTPError as error:
        with error:
            raise _refusal(url, error.code, error.read(_ANSWER_BYTES)) from None
    except (OSError, ValueError, HTTPException) as error:
        raise AllocatorAway(f"The allocator at {url} does not answer ({error}). Trying again until it does.") from error
    return _object(given)


def _refusal(url: str, status: int, body: bytes) -> EnrolmentError:
    if status in (408, 429) or status >= 500:
        return AllocatorAway(f"The allocator at {url} answers {status}. Trying again until it can.")
    try:
        detail = str(_object(json.loads(body)).get("detail", ""))
    except ValueError:
        detail = ""
    if status in (404, 405):
        return EnrolmentError(f"There is no allocator at {url} (it answers {status}). Check allocator_url.")
    return TokenRefused(detail or f"The allocator at {url} refuses the join token ({status}). Ask for a new one.")


def _credential(given: dict[str, Any], password: str) -> Credential:
    try:
        address = {known.name: given["database"][known.name] for known in fields(DatabaseAddress)}
        login = DatabaseLogin(**address, password=password)
        return Credential(given["vm_id"], given["hostname"], given["transport"], login)
    except (TypeError, KeyError) as error:
        raise EnrolmentError(f"The allocator's answer is not one this client understands ({error}).") from error


def _object(given: object) -> dict[str, Any]:
    return given if isinstance(given, dict) else {}


def require_private(url: str) -> None:
    """Raise EnrolmentError where a join token sent to `url` could be read on its way."""
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or "")):
        return
    raise EnrolmentError(
        f"The join token is only sent over https, or to this machine itself; allocator_url is {url!r}. Change it."
    )


def _silent(_words: str) -> None:
    return
