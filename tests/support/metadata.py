"""Stands in for EC2's instance metadata service: gives nothing without a session's token, signs with a test's key."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

REGION = "eu-central-1"
ACCOUNT = "123456789012"
SESSION = "session-of-the-metadata-service"
ROLE = "lablink-test-vm-1"
CREDENTIALS = {"AccessKeyId": "AKIATEST", "SecretAccessKey": "secret-of-the-role", "Token": "token-of-the-role"}


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs identity documents in one region; `directory` has its certificate, as an allocator pins it."""

    directory: Path
    key: rsa.RSAPrivateKey

    @classmethod
    def under(cls, directory: Path, region: str = REGION) -> "Signer":
        """A new one, whose key is as long as AWS's."""
        key = rsa.generate_private_key(65537, 1024)
        name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Test of AWS")])
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        lasting = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        directory.mkdir(exist_ok=True)
        directory.joinpath(f"{region}.pem").write_bytes(lasting.sign(key, SHA256()).public_bytes(Encoding.PEM))
        return cls(directory, key)

    def sign(self, document: str) -> str:
        """AWS's signature of a document, in base64."""
        return base64.b64encode(self.key.sign(document.encode(), padding.PKCS1v15(), SHA256())).decode()


@dataclass(slots=True)
class MetadataService:
    """One instance's; `claims` are what its identity document says."""

    signer: Signer
    claims: dict[str, Any] = field(default_factory=dict)
    credentials: dict[str, str] = field(default_factory=lambda: CREDENTIALS)
    url: str = ""
    role: str = ROLE
    user_data: bytes | None = None

    def describe(self, instance: str, **changed: Any) -> None:
        """Be that instance, started a minute ago."""
        started = (datetime.now(UTC) - timedelta(seconds=60)).strftime("%Y-%m-%dT%H:%M:%SZ")
        claims = {"instanceId": instance, "accountId": ACCOUNT, "region": REGION, "pendingTime": started}
        self.claims = {**claims, "version": "2017-09-30", **changed}

    def answer(self, path: str) -> bytes | None:
        """What is at a path."""
        if path == "/latest/user-data":
            return self.user_data
        document = json.dumps(self.claims, indent=2)
        text = {
            "dynamic/instance-identity/document": document,
            "dynamic/instance-identity/signature": self.signer.sign(document),
            "meta-data/iam/security-credentials/": self.role,
            f"meta-data/iam/security-credentials/{self.role}": json.dumps(self.credentials),
        }.get(path.removeprefix("/latest/"))
        return None if text is None else text.encode()


@contextmanager
def metadata_service(service: MetadataService, at: tuple[str, int] = ("127.0.0.1", 0)) -> Iterator[MetadataService]:
    """The service at an address of this machine, or of the network that this thread is in."""

    class Handler(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            asked = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
            self._say(SESSION.encode() if asked else None)

        def do_GET(self) -> None:
            known = self.headers["X-aws-ec2-metadata-token"] == SESSION
            self._say(service.answer(self.path) if known else None, 404 if known else 401)

        def _say(self, body: bytes | None, otherwise: int = 400) -> None:
            self.send_response(otherwise if body is None else 200)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            self.wfile.write(body or b"")

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            return

    with ThreadingHTTPServer(at, Handler) as server:
        service.url = f"http://{at[0]}:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()
