"""Whether a machine that enrols is the EC2 instance that it says: AWS signed it, it is allowed, it runs, it is ours.

AWS signs the instance identity document in three ways. The plain signature (RSA with SHA-256 over the document's bytes)
is the one that needs no parser of our own for what a stranger sent; its keys have 1,024 bits only, and so it is never
all that is asked for: the token is in a secret that only this instance's role can read, and EC2 is asked about it.
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/verify-signature.html
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from allocator import config
from allocator.errors import CloudAway, JoinRefused
from allocator.fleet.cloud import SHORT, Cloud
from allocator.fleet.refusals import CloudRefused
from allocator.views import Instance

Clouds = Mapping[str, Cloud]
"""The regions that are asked about instances, by name."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What a document says whose signature is right."""

    instance: Instance
    account: str
    region: str


def clouds_of(rules: config.Identity) -> Clouds:
    """The regions whose instances may enrol, if there is a fleet."""
    return {region: Cloud(region, SHORT) for region in rules.regions if rules.fleet}


async def identified(document: str, signature: str, rules: config.Identity, clouds: Clouds) -> Instance:
    """The instance whose identity that is. Raises JoinRefused, and CloudAway where EC2 cannot be asked."""
    claims = verified(document, signature, rules)
    if claims.account not in rules.accounts:
        raise JoinRefused(f"Instances of account {claims.account} do not enrol here: see identity.accounts.")
    try:
        found = await clouds[claims.region].instance(claims.instance.id)
    except CloudRefused as refused:
        raise CloudAway(why=refused.code) from refused
    if found is None or not found.is_running:
        raise JoinRefused(f"EC2 knows of no instance {claims.instance.id} that runs.")
    if found.fleet != rules.fleet:
        raise JoinRefused(f"{claims.instance.id} is not tagged as one of ours (lablink = {rules.fleet}).")
    return claims.instance


def verified(document: str, signature: str, rules: config.Identity) -> Claims:
    """What the document claims, once AWS's signature of it was found right. Raises JoinRefused."""
    try:
        claims = json.loads(document)
        region = str(claims["region"])
        if region not in rules.regions:
            raise JoinRefused("Instances of that region do not enrol here: see identity.regions.")
        key = _key(Path(rules.certificates or "") / f"{region}.pem")
        key.verify(base64.b64decode(signature), document.encode(), padding.PKCS1v15(), SHA256())
        started_at = datetime.fromisoformat(claims["pendingTime"]).replace(tzinfo=UTC)
        return Claims(Instance(str(claims["instanceId"]), started_at), str(claims["accountId"]), region)
    except (InvalidSignature, ValueError, KeyError, TypeError, RecursionError):
        raise JoinRefused("This is no identity that AWS has signed in that region.") from None


def _key(file: Path) -> rsa.RSAPublicKey:
    key = x509.load_pem_x509_certificate(file.read_bytes()).public_key()
    if not isinstance(key, rsa.RSAPublicKey):
        raise ValueError(f"{file} is not AWS's certificate for signatures with RSA")
    return key
