"""From one version to the next while people come: the database first, then the allocators one by one."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from tests.integration.test_migrate_under_load import migrated
from tests.sql.test_migrate import contents
from tests.support import LIMIT_SECONDS
from tests.support.admin import place
from tests.support.allocator import ROOT, Allocator, lablink
from tests.support.balancer import Balancer, balancing
from tests.support.crowd import Crowd, Person, coming
from tests.support.database import PASSWORDS, WORKER, Database, cloned_database
from tests.support.hub import hub_machine, hub_transport
from tests.support.machine import Machine, Pool
from tests.support.server import TestServer
from tests.support.service import NO_TLS, ready, running_service, settings_for
from tests.support.up import LOOK_EVERY

BEFORE = "a01e9b3ab3473715856ef977d4a98197b4f1c1b1"
"""The newest commit of the version before, which made databases of version 8."""


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the code of the version before."""
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, capture_output=True, check=False)
    if archive.returncode:
        pytest.fail(f"The version before, commit {BEFORE}, is not in this clone: git fetch --unshallow")
    directory = tmp_path_factory.mktemp("before")
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
    return directory


@pytest_asyncio.fixture
async def database(server: TestServer, template: str, before: Path) -> AsyncIterator[Database]:
    """A database that the version before has made, on a server that has LabLink's roles."""
    async with cloned_database(server, "template0", f"lablink_before_{WORKER}") as own:
        await bootstrap.prepare(server.superuser_dsn, PASSWORDS, own.name)
        migrating = await lablink(before, "db", "migrate", *place(own.dsn()))
        assert await migrating.wait() == 0
        assert await (await own.connect()).fetchval("SELECT version_num FROM alembic_version") == "8"
        yield own


@dataclass(slots=True)
class Site:
    """What there is of either version, until the test ends."""

    database: Database
    directory: Path
    balancer: Balancer
    opened: AsyncExitStack
    machines: list[Machine] = field(default_factory=list)

    async def starts(self, *allocators: Allocator) -> None:
        """These serve from now on, behind the balancer."""
        for each in allocators:
            await self.opened.enter_async_context(each.serving(self.database, "transport=auto"))
            self.balancer.allocators.append(each)

    async def goes(self, old: Allocator) -> None:
        """This one is taken out of the balancer, then stopped."""
        await self.balancer.take_out(old)
        await old.stop()

    async def old_machine(self, hostname: str, code: Path, *, over_the_hub: bool = False) -> None:
        """A machine that enrolled with the version before, and has a client of that version."""
        machine = await hub_machine(self.database, self.directory / hostname, hostname)
        settings = json.loads(machine.state.settings.read_text())
        del settings["boot_id"]  # which clients of that version do not know
        machine.state.settings.write_text(json.dumps(settings))
        if over_the_hub:
            machine.speaks_over_the_hub(self.balancer.url)
        await self._serves(machine, code)

    async def new_machine(self, hostname: str) -> None:
        """A machine that has a client of this version, which speaks to PostgreSQL."""
        await self._serves(Machine.of(await self.database.vm(hostname), self.directory / hostname))

    async def hub_machine(self, hostname: str) -> None:
        """One whose client speaks over the hub, whichever allocator the balancer leads it to."""
        machine = await hub_machine(self.database, self.directory / hostname, hostname)
        self.machines.append(machine)
        await self.opened.enter_async_context(machine.serving_over(hub_transport(machine, self.balancer.url)))

    async def has_over_the_hub(self, machines: int) -> None:
        """Return once so many machines are connected to the allocators that are not taken out."""
        async with asyncio.timeout(LIMIT_SECONDS):
            while await self._over_the_hub() != machines:  # noqa: ASYNC110
                await asyncio.sleep(LOOK_EVERY)

    async def _over_the_hub(self) -> float:
        return sum([await each.figure("lablink_hub_machines") for each in self.balancer.allocators])

    async def _serves(self, machine: Machine, code: Path | None = None) -> None:
        self.machines.append(machine)
        self.opened.push_async_callback(machine.stop)
        await machine.start(code=code)


@pytest_asyncio.fixture
async def site(database: Database, tmp_path: Path, before: Path) -> AsyncIterator[Site]:
    """Two allocators of the version before and three machines of theirs, at work, one of them over the hub."""
    async with AsyncExitStack() as opened, balancing() as balancer:
        own = Site(database, tmp_path, balancer, opened)
        await own.starts(Allocator.somewhere(before), Allocator.somewhere(before))
        for hostname in ("old-1", "old-2"):
            await own.old_machine(hostname, before)
        await own.old_machine("old-3", before, over_the_hub=True)
        yield own
        await opened.aclose()


async def everybody_serves(pool: Pool, site: Site, crowd: Crowd) -> None:
    """As many people as there are machines, who stay until all of them have one, are served between the others."""
    stay = [Person({"email": f"{uuid4()}@example.org", "crd_command": "sh -c :"}) for _ in site.machines]
    for person in stay:
        await crowd.ask(person)
    leases = [person.lease for person in stay]
    await pool.until("SELECT count(*) = $1 FROM leases WHERE id = ANY ($2) AND status = 'active'", len(stay), leases)
    for person in stay:
        await crowd.give_back(person)


async def repeat(crowd: Crowd, person: Person) -> None:
    """Whoever asks again with the same key has the same lease, whichever version is asked."""
    lease = person.lease
    for _ in range(4):
        await crowd.ask(person)
        assert person.lease == lease


async def read_all(crowd: Crowd) -> None:
    """Each allocator is asked for what it can show."""
    person = crowd.accepted[-1]
    for path in ("/", "/api/v1/vms", "/api/unassigned_vms_count", f"/api/v1/leases/{person.lease}") * 2:
        answer = await crowd.client.get(path, headers=person.holder)
        assert answer.status_code == 200, path


@pytest.mark.timeout(300)
async def test_people_and_machines_of_both_versions_are_served_from_the_first_step_to_the_last(site: Site) -> None:
    first, second = site.balancer.allocators
    pool = await Pool.of(site.database)
    each_alone = httpx.Limits(max_keepalive_connections=0)
    async with httpx.AsyncClient(
        base_url=site.balancer.url, timeout=LIMIT_SECONDS, verify=NO_TLS, limits=each_alone
    ) as client:
        crowd = Crowd(client, lambda number: f"sh -c 'echo {number} >> {site.directory}/starts'")
        async with coming(crowd):
            await everybody_serves(pool, site, crowd)
            await site.has_over_the_hub(1)
            migration = await migrated(site.database)
            await crowd.accepts(30)
            await read_all(crowd)
            await site.new_machine("new-1")
            await site.starts(Allocator.somewhere())
            await site.goes(first)
            await site.starts(Allocator.somewhere())
            await site.hub_machine("new-2")
            await everybody_serves(pool, site, crowd)
            await read_all(crowd)
            await repeat(crowd, crowd.accepted[0])
            await site.goes(second)
            await crowd.accepts(30)
            await everybody_serves(pool, site, crowd)
            await site.has_over_the_hub(2)
        await crowd.leave()

    assert migration.done.returncode == 0, migration.done.stderr
    assert [each for each in crowd.refused if not migration.explains(each)] == []
    assert (crowd.unanswered, await crowd.lost(pool.owner)) == (0, [])
    await pool.until("SELECT count(*) = $1 FROM vms WHERE status = 'available'", len(site.machines))
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []
    started = (site.directory / "starts").read_text().split()
    assert len(started) == len(set(started))


async def test_an_allocator_that_comes_before_its_database_was_migrated_says_so_and_serves_when_it_is(
    database: Database, tmp_path: Path
) -> None:
    async with running_service(settings_for(database, tmp_path)) as service, service.client() as client:
        early = await client.get("/readyz")
        assert (await migrated(database)).done.returncode == 0
        await ready(service.service)

        assert (early.status_code, (await client.get("/readyz")).status_code) == (503, 200)
    assert "lablink db migrate" in early.json()["detail"]


async def test_after_the_way_back_there_is_nothing_that_the_version_before_does_not_know(
    database: Database, before: Path
) -> None:
    known = await contents(database)

    assert (await migrated(database)).done.returncode == 0
    assert await migrate.downgrade(database.dsn("lablink"), "-1") == "8"
    migrating = await lablink(before, "db", "migrate", *place(database.dsn()))

    assert await migrating.wait() == 0
    assert await contents(database) == known
