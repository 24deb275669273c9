"""What a killed terraform made and could not write down: the next plan takes it over, or it is removed."""

import asyncio
from collections.abc import Collection, Coroutine, Iterable, Mapping
from typing import Any

from allocator.fleet.cloud import Instance
from allocator.fleet.description import Fleet
from allocator.tasks import to_its_end

INSTANCE, ROLE, PROFILE, SECRET = (
    'module.fleet.aws_instance.this["{}"]',
    'module.fleet.aws_iam_role.this["{}"]',
    'module.fleet.aws_iam_instance_profile.this["{}"]',
    'module.fleet.aws_secretsmanager_secret.join["{}"]',
)
"""Addresses in terraform/fleet, each with a hostname."""


def instances_in(state: Mapping[str, Any]) -> dict[str, str]:
    """The instances that a state has, by hostname."""
    beginning, end = INSTANCE.split("{}")
    return {
        address.removeprefix(beginning).removesuffix(end): values["id"]
        for address, values in state.items()
        if address.startswith(beginning)
    }


async def left_over(fleet: Fleet, state: Mapping[str, Any], hostnames: Iterable[str]) -> dict[str, str]:
    """What these machines have in the cloud and the state does not: AWS's id of each, by address."""
    there = await fleet.cloud.instances(fleet.name)
    orphans = {each.hostname: each.id for each in unwritten(there, state)}
    found = await asyncio.gather(*(_of(fleet, state, hostname, orphans) for hostname in hostnames))
    return {address: name for each in found for address, name in each.items()}


def unwritten(there: Iterable[Instance], state: Mapping[str, Any]) -> list[Instance]:
    """The instances that live and no state knows."""
    known = set(instances_in(state).values())
    return [each for each in there if not each.is_gone and each.id not in known]


async def remove(fleet: Fleet, state: Mapping[str, Any], hostnames: Collection[str]) -> None:
    """Remove what machines that are not wanted left in the cloud and the state does not know."""
    there = unwritten(await fleet.cloud.instances(fleet.name), state)
    await fleet.cloud.terminate(each.id for each in there if each.hostname in hostnames)
    unknown = [hostname for hostname in hostnames if ROLE.format(hostname) not in state]
    await to_its_end(_all(fleet.cloud.remove_identity(fleet.role_of(h), fleet.secret_of(h)) for h in unknown))


async def _all(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Do it side by side. What goes wrong is raised when all has ended: the next run may make what has these names."""
    for failure in await asyncio.gather(*work, return_exceptions=True):
        if failure is not None:
            raise failure


async def _of(fleet: Fleet, state: Mapping[str, Any], hostname: str, orphans: Mapping[str, str]) -> dict[str, str]:
    """The same for one machine."""
    role, found = fleet.role_of(hostname), dict[str, str | None]()
    if ROLE.format(hostname) not in state:
        found[ROLE] = await fleet.cloud.role(role)
    if PROFILE.format(hostname) not in state:
        found[PROFILE] = await fleet.cloud.profile(role)
    if SECRET.format(hostname) not in state:
        found[SECRET] = await fleet.cloud.secret(fleet.secret_of(hostname))
    if INSTANCE.format(hostname) not in state:
        found[INSTANCE] = orphans.get(hostname)
    return {kind.format(hostname): name for kind, name in found.items() if name}
