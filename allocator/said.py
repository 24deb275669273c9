"""What a machine says over the hub, as far as it must be read before it is passed on."""

import json
from dataclasses import dataclass
from typing import Any
from uuid import UUID

HIGHEST = 2**63 - 1


class Unreadable(Exception):
    """That was no verb."""


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
