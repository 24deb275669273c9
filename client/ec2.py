"""What an EC2 instance can say of itself, and how it reads its join token: over IMDSv2 and from Secrets Manager."""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from http.client import HTTPException
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener, urlopen

from client.signature import Call, Keys, signed

METADATA = "http://169.254.169.254"
_SECONDS = 5
_ANSWER_BYTES = 100_000
_TARGET = "secretsmanager.GetSecretValue"


class AwsAway(Exception):
    """The metadata service or Secrets Manager has no answer yet: a network that comes up, a secret without a value."""


@dataclass(frozen=True, slots=True)
class Identity:
    """An instance identity document, byte for byte, and AWS's signature of it in base64."""

    document: str
    signature: str

    def claim(self, name: str) -> str:
        """What the document says under that name. Raises AwsAway."""
        return _texts(self.document, name)[0]

    def as_fields(self) -> dict[str, str]:
        """As it is sent."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The instance metadata service, by a session of IMDSv2."""

    url: str
    token: str

    @classmethod
    def opened(cls) -> "Metadata":
        """Begin a session. Raises AwsAway, also where there is no such service."""
        url = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", METADATA).rstrip("/")
        ask = Request(f"{url}/latest/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
        return cls(url, _read(ask).decode())

    def get(self, path: str) -> str:
        """What is at `path`. Raises AwsAway."""
        return _read(Request(f"{self.url}/latest/{path}", headers={"X-aws-ec2-metadata-token": self.token})).decode()

    def identity(self) -> Identity:
        """The signed identity of this instance. Raises AwsAway."""
        document, signature = (self.get(f"dynamic/instance-identity/{name}") for name in ("document", "signature"))
        return Identity(document, signature)

    def keys(self) -> Keys:
        """The credentials of the instance's role. Raises AwsAway."""
        role = self.get("meta-data/iam/security-credentials/").split("\n")[0]
        given = self.get(f"meta-data/iam/security-credentials/{role}")
        return Keys(*_texts(given, "AccessKeyId", "SecretAccessKey", "Token"))


def join_token(secret: str, region: str, keys: Keys) -> str:
    """The text of a secret, by its name or ARN. Raises AwsAway."""
    suffix = "amazonaws.com.cn" if region.startswith("cn-") else "amazonaws.com"
    usual = f"https://secretsmanager.{region}.{suffix}"
    url = os.environ.get("AWS_ENDPOINT_URL_SECRETS_MANAGER", usual).rstrip("/")
    body = json.dumps({"SecretId": secret}).encode()
    headers = {"content-type": "application/x-amz-json-1.1", "x-amz-target": _TARGET}
    call = Call(url.partition("://")[2], body, headers)
    to_send = signed(call, keys, region, "secretsmanager", datetime.now(UTC))
    return _texts(_read(Request(f"{url}/", body, to_send), proxied=True).decode(), "SecretString")[0].strip()


def _read(request: Request, *, proxied: bool = False) -> bytes:
    """An answer. The metadata service is on this machine: no proxy leads there."""
    ask = urlopen if proxied else build_opener(ProxyHandler({})).open
    try:
        with ask(request, timeout=_SECONDS) as answer:
            given: bytes = answer.read(_ANSWER_BYTES)
    except HTTPError as error:
        with error:
            raise AwsAway(
                f"{request.full_url} answers {error.code} {_kind(error.read(_ANSWER_BYTES))}".rstrip()
            ) from None
    except (OSError, HTTPException) as error:
        raise AwsAway(f"{request.full_url} does not answer ({error})") from error
    return given


def _kind(body: bytes) -> str:
    """The name of AWS's error."""
    try:
        return str(json.loads(body)["__type"])
    except (ValueError, KeyError, TypeError):
        return ""


def _texts(answer: str, *names: str) -> list[str]:
    """What an answer has under these names. Raises AwsAway, also while AWS only says that there is nothing yet."""
    try:
        given = json.loads(answer)
        return [str(given[name]) for name in names]
    except (ValueError, KeyError, TypeError):
        raise AwsAway(f"AWS answers without {', '.join(names)}") from None
