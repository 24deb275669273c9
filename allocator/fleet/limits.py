"""Whether AWS has what is wanted, asked before Terraform tries: instance types, and room in the account's quotas."""

from collections import Counter
from collections.abc import Iterable
from itertools import takewhile

from allocator.fleet.cloud import Cloud
from allocator.fleet.refusals import TooMuch

FAMILIES = {
    "L-DB2E81BA": ("G and VT", ("g", "gr", "vt")),
    "L-417A185B": ("P", ("p",)),
    "L-74FC7D96": ("F", ("f",)),
    "L-7295265B": ("X", ("x",)),
    "L-1945791B": ("Inf", ("inf",)),
    "L-2C3B7624": ("Trn", ("trn",)),
    "L-6E869C2A": ("DL", ("dl",)),
    "L-F7808C92": ("HPC", ("hpc",)),
    "L-43DA4232": ("high memory", ("u",)),
}
STANDARD = "L-1216C47A"
"""Quotas of Running On-Demand instances, in processors:
https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html"""


def quota_of(kind: str) -> tuple[str, str]:
    """The quota that instances of a type count for: its code, and its name."""
    letters = "".join(takewhile(str.isalpha, kind))
    for code, (name, families) in FAMILIES.items():
        if letters in families:
            return code, name
    return STANDARD, "Standard (A, C, D, H, I, M, R, T, Z)"


async def check(cloud: Cloud, new: Iterable[str]) -> None:
    """Raises TooMuch unless the region has these types, and the account's quotas room for one more of each."""
    wanted = Counter(new)
    if not wanted:
        return
    running = Counter(await cloud.running_types())
    processors = await cloud.processors([*wanted, *running])
    unknown = sorted(kind for kind in wanted if kind not in processors)
    if unknown:
        raise TooMuch(f"This region has no {' and no '.join(unknown)}. Take another instance type, or another region.")
    for code, name in sorted({quota_of(kind) for kind in wanted}):
        await _check_quota(cloud, code, name, _sum(wanted, processors, code), _sum(running, processors, code))


async def _check_quota(cloud: Cloud, code: str, name: str, more: int, used: int) -> None:
    limit = await cloud.quota(code)
    if limit is not None and used + more > limit:
        raise TooMuch(
            f"{more} more processors are wanted, {used} run, and this account may have {limit:g} in instances of the "
            f"family {name}. Ask AWS for more (Service Quotas, EC2, {code}), or let fewer or smaller machines come."
        )


def _sum(kinds: Counter[str], processors: dict[str, int], code: str) -> int:
    return sum(processors.get(kind, 0) * many for kind, many in kinds.items() if quota_of(kind)[0] == code)
