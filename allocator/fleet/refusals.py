"""What Terraform, AWS or we ourselves refuse, in a sentence that says what to do.

FleetError
├── NoFleet             no machines in the cloud are configured
├── InUse               people are on machines that would go
├── NotOfFleet          the fleet has no such machine
├── Ended               an admin wanted it to end
├── TooMuch             AWS does not have, or does not allow, what is wanted
├── CloudRefused        AWS said no, or nothing
├── TerraformMissing
└── TerraformFailed
    ├── StateLocked
    ├── NoCapacity
    ├── QuotaReached
    ├── CredentialsExpired
    └── ImageUnknown
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

LOCKED_AFTER_SECONDS = 120
"""A terraform locks its state within that time from its start."""


class FleetError(Exception):
    """Base of what can go wrong with machines in the cloud."""


class NoFleet(FleetError):
    """No machines in the cloud are configured, or their file cannot be read."""


class NotOfFleet(FleetError):
    """The fleet has no such machine."""

    def __init__(self, hostname: str) -> None:
        super().__init__(f"The fleet has no machine {hostname}. See which there are: lablink fleet status")


class Ended(FleetError):
    """An admin wanted the operation to end."""

    def __init__(self, by: str) -> None:
        super().__init__(f"{by} ended it over the HTTP API. The same again goes on where it was.")


class TooMuch(FleetError):
    """AWS does not have, or does not allow this account, what is wanted."""


class CloudRefused(FleetError):
    """AWS said no to something that was asked beside Terraform, or did not answer. `code` is its word for why."""

    def __init__(self, said: str, code: str) -> None:
        super().__init__(f"AWS refuses: {said}")
        self.code = code


WAIT = 'Wait for them with --drain (over HTTP: "drain": true), or end their leases: lablink vms release HOSTNAME'


class InUse(FleetError):
    """People are on machines that would go. Who they are is for admins: in the operation, and in no log."""

    def __init__(self, hostnames: Sequence[str], people: Sequence[str]) -> None:
        said = [f"Nothing was removed, because somebody is on {', '.join(hostnames)}:", *people, WAIT]
        super().__init__("\n".join(said))
        self.hostnames = list(hostnames)
        self.people = list(people)


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
        "that it runs nowhere, then give the ID above to: lablink fleet unlock ID, and say the same again."
    )

    @property
    def lock(self) -> str:
        """The lock's ID; empty when Terraform did not say."""
        return self._said("ID")

    def is_of(self, host: str, begun: float) -> bool:
        """Whether it was made on this host at that time (seconds since 1970) or in the seconds after."""
        made = re.match(r"[\d-]+ [\d:]+", self._said("Created"))
        if not made or not self._said("Who").endswith(f"@{host}"):
            return False
        at = datetime.fromisoformat(made[0]).replace(tzinfo=UTC).timestamp()
        return -1 <= at - begun < LOCKED_AFTER_SECONDS

    def _said(self, what: str) -> str:
        found = re.search(rf"^\s*{what}:\s*(\S.*)$", self.detail, re.MULTILINE)
        return found[1].strip() if found else ""


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
