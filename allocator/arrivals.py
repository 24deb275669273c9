"""Misses machines: says of one that was invited and never came in which phase of its boot it stopped."""

import asyncio
import re

import structlog

from allocator.errors import ServiceError
from allocator.fleet.cloud import Cloud
from allocator.fleet.identity import Clouds
from allocator.fleet.refusals import CloudRefused
from allocator.store import Store
from allocator.views import Absent

log = structlog.get_logger()

LOOK_SECONDS = 60.0
NEVER_ASKED = "it never asked to be let in"
PHASE = re.compile(r"^lablink: ([a-z][a-z-]{0,39}) [0-9.]+\s*$", re.MULTILINE)
"""What the boot script writes to the console when a phase begins (terraform/modules/fleet/boot.yaml.tftpl)."""


class Arrivals:
    """Looks once a minute who did not come. Any number of allocators may: each machine is written down once."""

    def __init__(self, store: Store, clouds: Clouds) -> None:
        self._store = store
        self._cloud = next(iter(clouds.values()), None)

    async def run(self) -> None:
        """Look for ever; a database that is away is waited for."""
        while True:
            try:
                await self.run_once()
            except ServiceError as error:
                log.warning("arrivals.failed", error=type(error).__name__, why=error.why)
            except Exception:  # the outermost loop: the next look must come
                log.exception("arrivals.failed")
            await asyncio.sleep(LOOK_SECONDS)

    async def run_once(self) -> list[str]:
        """Write down who did not come; returns their names."""
        missed = []
        for absent in await self._store.absent_machines():
            phase = await self._phase(absent)
            if await self._store.note_absence(absent, phase):
                log.warning("vm.absent", hostname=absent.hostname, phase=phase)
                missed.append(absent.hostname)
        return missed

    async def _phase(self, absent: Absent) -> str:
        if absent.instance_id is None or self._cloud is None:
            return NEVER_ASKED
        try:
            return await phase_of(absent.instance_id, self._cloud)
        except CloudRefused:
            return f"{NEVER_ASKED}; EC2 does not say how far it came"


async def phase_of(instance: str, cloud: Cloud) -> str:
    """How far an instance came, as EC2 and its console tell it. Raises CloudRefused."""
    found = await cloud.instance(instance)
    if found is None or found.state != "running":
        return f"instance: {found.state if found else 'gone'}"
    return last_phase(await cloud.console(instance))


def last_phase(said: str) -> str:
    """How far a machine that runs came, by what it wrote to its console."""
    begun = PHASE.findall(said)
    if begun and begun[-1] == "failed":
        return f"{begun[-2] if begun[1:] else 'cloud-init'}: failed"
    return begun[-1] if begun else "instance: running, and its console says nothing of cloud-init"
