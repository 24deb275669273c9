"""What can be set of a pool."""

from decimal import Decimal
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, StringConstraints, ValidationInfo, field_validator

from allocator.conf_values import DAY, PoolName, Program, Section

MOST = 100_000
"""Machines of one pool."""

Money = Annotated[Decimal, Field(ge=0, le=10**9)]


class Pool(Section):
    """What kind of machine is lent, and for how long."""

    name: PoolName
    desktop: Annotated[bool, Field(serialization_alias="accepts_desktop")]
    """Whether it runs Chrome Remote Desktop's start-host."""
    programs: tuple[Program, ...]
    """Other programs that a person may run on it."""
    lease_seconds: Annotated[int, Field(ge=1, le=365 * DAY)]
    command_seconds: Annotated[int, Field(ge=1, le=DAY)]
    queue_seconds: Annotated[int, Field(ge=1, le=30 * DAY)]
    keep_seconds: Annotated[int, Field(ge=1, le=DAY)]
    """For how long a machine is kept for somebody who is asked for a fresh line."""
    restart_on_move: bool
    """Whether a job may start again on another machine: the first one may have done part of it."""
    extend_seconds: Annotated[int, Field(ge=0, le=30 * DAY)]
    """By how much its holder may make a lease longer at a time; 0: not at all."""
    longest_seconds: Annotated[int, Field(ge=1, le=365 * DAY)]
    """How long a lease may get so while nobody waits; while somebody does, no longer than lease_seconds."""
    warn_seconds: Annotated[int, Field(ge=0, le=DAY)]
    """How long before its end the holder of a lease is warned."""
    idle_warn_seconds: Annotated[int, Field(ge=1, le=DAY)]
    """How long before an idle lease ends its holder is warned."""
    idle_seconds: Annotated[int, Field(ge=0, le=30 * DAY)]
    """How long a machine may be left unused before its lease ends; 0: as long as the lease lasts."""
    min_machines: Annotated[int, Field(ge=0, le=MOST)]
    spare_machines: Annotated[int, Field(ge=0, le=MOST)]
    """How many are kept ready beyond those that are lent or waited for."""
    max_machines: Annotated[int, Field(ge=0, le=MOST)] | None
    """The most that there may be; null: machines come and go by hand only."""
    boots_at_once: Annotated[int, Field(ge=1, le=MOST)]
    """How many may boot at a time, and be begun in a minute."""
    shrink_after_seconds: Annotated[int, Field(ge=0, le=30 * DAY)]
    """For how long there must have been too many before idle ones go."""
    access: Literal["open", "members"]
    """Who may ask: everybody, or who is of a group that has a share in it."""
    per_person: Annotated[int, Field(ge=1, le=MOST)]
    """How many live leases a person may have in it; of all pools where that is 1, one."""
    price_per_hour: Money | None
    """What an hour of one of its machines costs while it is lent."""
    budget: Money | None
    """What its leases may cost in a calendar month; null, or without a price: what they like."""
    currency: Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
    time_zone: str
    """Where its days and months begin."""

    @field_validator("time_zone")
    @classmethod
    def _is_a_time_zone(cls, name: str) -> str:
        if "/" not in name and name != "UTC":
            raise ValueError("must be named by a place, as Europe/Berlin: CET is an hour from UTC in summer, too")
        try:
            return name if name == "UTC" else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("must be the name of a time zone, as Europe/Berlin") from None

    @field_validator("max_machines")
    @classmethod
    def _is_no_less_than_the_least(cls, most: int | None, info: ValidationInfo) -> int | None:
        if most is not None and most < info.data.get("min_machines", 0):
            raise ValueError("must not be less than pool.min_machines")
        return most

    @field_validator("idle_seconds")
    @classmethod
    def _is_longer_than_its_warning(cls, idle_seconds: int, info: ValidationInfo) -> int:
        if 0 < idle_seconds <= info.data.get("idle_warn_seconds", 0):
            raise ValueError("must be more than pool.idle_warn_seconds, or 0: never")
        return idle_seconds

    @field_validator("programs")
    @classmethod
    def _accepts_something(cls, programs: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        if not programs and info.data.get("desktop") is False:
            raise ValueError("must name a program, because pool.desktop is false: the pool would accept nothing")
        return programs
