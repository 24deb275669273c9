"""AWS's Signature Version 4, as far as a machine needs it to read its own join token.

https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """Credentials of AWS; those of an instance's role come with a session token."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose path is plain and whose query is empty, as those of AWS's JSON services are."""

    host: str
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "POST"


def signed(call: Call, keys: Keys, region: str, service: str, now: datetime) -> dict[str, str]:
    """The headers to send the call with, its own among them; `now` in UTC."""
    at = now.strftime("%Y%m%dT%H%M%SZ")
    given = {name.lower(): " ".join(value.split()) for name, value in call.headers.items()}
    given |= {"host": call.host, "x-amz-date": at}
    if keys.session_token:
        given["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(given))
    lines = [f"{name}:{given[name]}\n" for name in sorted(given)]
    request = "\n".join([call.method, "/", "", "".join(lines), names, hashlib.sha256(call.body).hexdigest()])
    scope = f"{at[:8]}/{region}/{service}/aws4_request"
    to_sign = "\n".join([ALGORITHM, at, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    authorization = f"{ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    return given | {"authorization": authorization}
