"""What Terraform, or AWS through it, refuses, in a sentence that says what to do.

FleetError
├── TerraformMissing
└── TerraformFailed
    ├── StateLocked
    ├── NoCapacity
    ├── QuotaReached
    ├── CredentialsExpired
    └── ImageUnknown
"""

from collections.abc import Sequence
from typing import Any


class FleetError(Exception):
    """Base of what can go wrong with machines in the cloud."""


class TerraformMissing(FleetError):
    """There is no terraform on this machine."""

    def __init__(self) -> None:
        super().__init__("There is no terraform here. Install version 1.11 or newer, or use the allocator's image.")


class TerraformFailed(FleetError):
    """Terraform ended with an error; `detail` is what it said."""

    advice = "Mend what it names and say the same again: what was done stays, the rest is done then."

    def __init__(self, command: str, detail: str) -> None:
        super().__init__(f"terraform {command} failed: {detail or 'it said nothing'}\n{self.advice}")
        self.detail = detail


class StateLocked(TerraformFailed):
    """Somebody else's terraform is at work on this state, or was killed at it."""

    advice = (
        "Somebody else's terraform works on these machines: wait for it. If it was killed, nobody will finish it: look "
        "that it runs nowhere, then terraform force-unlock with the ID above, and say the same again."
    )


class NoCapacity(TerraformFailed):
    """AWS has no such machine free in that zone at this moment."""

    advice = "AWS has no such machine left in this zone now. Try another zone or instance type, or try later."


class QuotaReached(TerraformFailed):
    """The account may not have so many processors of that family."""

    advice = "Ask AWS for more in Service Quotas (Running On-Demand instances), or take a smaller instance type."


class CredentialsExpired(TerraformFailed):
    """AWS does not know who asks, or not any more."""

    advice = "Log in to AWS again, or give the allocator its instance role, and say the same again."


class ImageUnknown(TerraformFailed):
    """The machine image is not in this region, or not this account's to use."""

    advice = "An AMI belongs to one region: copy it there, or give the id that it has there."


KNOWN: tuple[tuple[type[TerraformFailed], tuple[str, ...]], ...] = (
    (StateLocked, ("Error acquiring the state lock",)),
    (NoCapacity, ("InsufficientInstanceCapacity", "InsufficientHostCapacity")),
    (QuotaReached, ("VcpuLimitExceeded", "InstanceLimitExceeded", "MaxSpotInstanceCountExceeded")),
    (
        CredentialsExpired,
        ("ExpiredToken", "RequestExpired", "AuthFailure", "InvalidClientTokenId", "No valid credential"),
    ),
    (ImageUnknown, ("InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable")),
)
"""Words of Terraform and of the EC2 API (https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html)."""


def refusal(command: str, lines: Sequence[dict[str, Any]]) -> TerraformFailed:
    """The error of a terraform that printed these lines of level error."""
    found = [line.get("diagnostic") or {"summary": line.get("@message", "")} for line in lines]
    detail = "\n".join(f"{each['summary']} {each.get('detail', '')}".strip() for each in found)
    kind = next((kind for kind, words in KNOWN if any(word in detail for word in words)), TerraformFailed)
    return kind(command, detail)
