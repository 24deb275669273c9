"""What a machine says over the hub, as far as it must be read before it is passed on."""

import json
from dataclasses import dataclass
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from client.protocol import Outcome

HIGHEST = 2**63 - 1


class Unreadable(Exception):
    """That was no verb."""


class PlainReport(BaseModel):
    """A report as nearly all are: the database would refuse nothing in it, and nobody waits long for it."""

    model_config = ConfigDict(strict=True)

    lease_id: UUID
    epoch: Annotated[int, Field(ge=0, le=HIGHEST)]
    outcome: Outcome
    exit_code: Annotated[int, Field(ge=-(2**31), lt=2**31)] | None = None
    output: Annotated[str, Field(pattern=r"^[^\x00]{0,2000}$")] = ""
    failure: Annotated[str, Field(pattern="^[a-z][a-z-]{0,39}$")] | None = None


@dataclass(frozen=True, slots=True)
class Said:
    """What a machine said: a verb, and the JSON that its arguments are in."""

    verb: str
    text: str
    arguments: dict[str, Any]

    @classmethod
    def of(cls, text: str | None) -> "Said":
        """Read a message, whose text is None if it is bytes. Raises Unreadable."""
        try:
            arguments = json.loads(text or "")
            return cls(str(arguments["verb"]), text or "", arguments)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise Unreadable from None

    @property
    def epoch(self) -> int:
        """The epoch that it knows. Raises Unreadable."""
        epoch = self.arguments.get("epoch")
        if type(epoch) is int and 0 <= epoch <= HIGHEST:
            return epoch
        raise Unreadable

    @property
    def lease_id(self) -> UUID | None:
        """The lease that it names, if any. Raises Unreadable."""
        lease = self.arguments.get("lease_id")
        try:
            return None if lease is None else UUID(lease)
        except (ValueError, TypeError, AttributeError):
            raise Unreadable from None

    @property
    def idle_seconds(self) -> int | None:
        """Since when nobody has used the machine; None: it does not say, or nothing that can be."""
        idle = self.arguments.get("idle_seconds")
        return idle if type(idle) is int and 0 <= idle < 2**31 else None

    def plain_report(self) -> tuple[object, ...] | None:
        """What it reports, in the order of PlainReport; None if that is not plain."""
        try:
            plain = PlainReport.model_validate_json(self.text)
        except ValidationError:
            return None
        return None if plain.outcome == "exited" and plain.exit_code is None else tuple(vars(plain).values())
