"""The drill: PostgreSQL is killed under 50 requests a second. Nobody who was told "yes" is left in the dark."""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from signal import SIGKILL

import httpx
import pytest
import pytest_asyncio

from allocator import bootstrap, migrate
from tests.support.admin import answer, lablink
from tests.support.allocator import Allocator
from tests.support.crowd import Crowd, Person, answered, coming
from tests.support.database import PASSWORDS, Database
from tests.support.journals import opened
from tests.support.machine import Machine, Pool
from tests.support.restarts import Crashing
from tests.support.server import TestServer
from tests.support.up import free_port

OVER = {"ended", "cancelled", "failed"}


@dataclass(slots=True)
class Place:
    """A LabLink with two machines, on a server of its own, and those who ask for them."""

    directory: Path
    server: Crashing
    database: Database
    machines: list[Machine]
    crowd: Crowd
    allocator: Allocator

    @property
    def starts(self) -> Counter[int]:
        """How often the command of each person was started, by their number."""
        return Counter(int(number) for number in (self.directory / "starts").read_text().split())


@pytest_asyncio.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    server = Crashing.under(tmp_path / "server")
    allocator = Allocator(free_port())
    async with AsyncExitStack() as opened:
        opened.push_async_callback(server.stop)
        database = await deployed(await server.start(), opened)
        machines = [Machine.of(await database.vm(f"vm-{n}"), tmp_path / f"vm-{n}") for n in range(2)]
        for machine in machines:
            opened.push_async_callback(machine.stop)
            await machine.start()
        client = await opened.enter_async_context(httpx.AsyncClient(base_url=allocator.url, timeout=30))
        crowd = Crowd(client, lambda number: f"sh -c 'echo {number} >> {tmp_path}/starts'")
        yield Place(tmp_path, server, database, machines, crowd, allocator)


async def deployed(server: TestServer, opened: AsyncExitStack) -> Database:
    """The database of a server that had none."""
    await bootstrap.prepare(server.superuser_dsn, PASSWORDS)
    await migrate.upgrade(server.dsn(bootstrap.DATABASE, bootstrap.OWNER, PASSWORDS[bootstrap.OWNER]))
    return Database(server, bootstrap.DATABASE, opened)


async def at_work(place: Place) -> None:
    """Return once people have machines, each machine has run somebody's command, and half a hundred more have asked."""
    pool = await Pool.of(place.database)
    everybody = "SELECT count(DISTINCT vm_id) = $1 FROM leases WHERE active_at IS NOT NULL"
    await pool.until(everybody, len(place.machines))
    await place.crowd.accepts(50)


async def finish(place: Place, database: Database) -> None:
    """Everybody leaves; all machines are clean and free then, and no rule is broken."""
    await place.crowd.leave()
    pool = await Pool.of(database)
    await pool.until("SELECT count(*) = $1 FROM vms WHERE status = 'available'", len(place.machines))
    assert await answer(database, "verify") == []


def check_refusals(crowd: Crowd) -> None:
    """Whoever asked and was not served was told when to ask again."""
    refused = [each for each in crowd.refused if each.method == "POST"]
    assert [each for each in refused if each.status != 503 or int(each.retry_after or 0) <= 0] == []


@pytest.mark.timeout(300)
async def test_when_the_server_is_killed_and_started_again_everything_accepted_is_there(place: Place) -> None:
    crowd = place.crowd
    async with place.allocator.serving(place.database):
        async with coming(crowd):
            await at_work(place)
            await place.server.crash(SIGKILL)
            await crowd.is_refused()
            await place.server.start()
            await crowd.accepts(50)
        check_refusals(crowd)
        owner = await place.database.connect()
        assert await crowd.lost(owner) == []
        accepted = {person.key: person.lease for person in crowd.accepted}
        for person in crowd.people:
            await answered(
                partial(crowd.ask, person)
            )  # who heard nothing asks again, and who was accepted has the same lease
            assert accepted.get(person.key, person.lease) == person.lease
        assert await owner.fetchval("SELECT count(*) FROM leases") == len(crowd.people)
        assert {(await look(crowd, person))[0] for person in crowd.people} == {200}
        await finish(place, place.database)
    assert set(place.starts.values()) == {1}


async def look(crowd: Crowd, person: Person) -> tuple[int, dict[str, str]]:
    """What a person is told of their lease: status and words."""
    shown = await answered(partial(crowd.look, person))
    return shown.status_code, shown.json()


@dataclass(frozen=True, slots=True)
class Lost:
    """Who had been accepted when the server died, and from when to when the last backup was made before."""

    accepted: list[Person]
    began: float
    ended: float


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_the_last_backup_restored_elsewhere_accounts_for_everything_that_was_accepted(place: Place) -> None:
    backups = str(place.directory / "backups")
    async with elsewhere(place) as there:
        lost = await lose(place, backups)
        await restore(place, there, backups)
        async with place.allocator.serving(there):
            for machine in place.machines:
                await invite(place, there, machine)
            async with coming(place.crowd):
                await place.crowd.accepts(50)
            check_refusals(place.crowd)
            anew = await account_for(place.crowd, lost)
            await finish(place, there)
    assert all(times <= 1 + (number in anew) for number, times in place.starts.items())


async def lose(place: Place, backups: str) -> Lost:
    """A backup under load, and some time later the server is gone."""
    crowd, loop = place.crowd, asyncio.get_running_loop()
    async with place.allocator.serving(place.database), coming(crowd):
        await at_work(place)
        began = loop.time()
        await answer(place.database, "db", "backup", "--to", backups)
        ended = loop.time()
        await crowd.accepts(50)
        await place.server.crash(SIGKILL)
        await crowd.is_refused()
    return Lost(crowd.accepted, began, ended)


async def restore(place: Place, there: Database, backups: str) -> None:
    """The last backup on a server that never had these machines."""
    superuser = {"SUPERUSER": there.server.superuser_dsn}
    done = await lablink(there, "db", "deploy", "--superuser", "env:SUPERUSER", **superuser)
    restored = await answer(there, "db", "restore", "latest", "--from", backups)
    assert done.returncode == 0
    assert restored["vms_to_invite"] == [machine.vm.hostname for machine in place.machines]


@asynccontextmanager
async def elsewhere(place: Place) -> AsyncIterator[Database]:
    """The database of another server, which is not there yet."""
    server = Crashing.under(place.directory / "elsewhere")
    async with AsyncExitStack() as opened:
        opened.push_async_callback(server.stop)
        yield Database(await server.start(), bootstrap.DATABASE, opened)


async def invite(place: Place, there: Database, machine: Machine) -> None:
    """The machine joins again, as the one it was; its epoch is above all that it remembers."""
    owner = await there.connect()
    await machine.stop()
    remembered = opened(machine.state.journal).memory.epoch
    epochs = "SELECT epoch FROM vms WHERE hostname = $1"
    assert await owner.fetchval(epochs, machine.vm.hostname) > remembered > 0
    invited = await lablink(there, "vms", "invite", machine.vm.hostname, "--yes")
    token = machine.state.root / "join-token"
    token.write_text(invited.stdout)
    settings = json.loads(machine.state.settings.read_text())
    joins = {"allocator_url": place.allocator.url, "join_token_file": str(token)}
    machine.state.settings.write_text(json.dumps(settings | joins))
    await machine.start()
    await (await Pool.of(there)).until(
        f"SELECT ({epochs} AND status <> 'booting') > $2", machine.vm.hostname, remembered
    )


async def account_for(crowd: Crowd, lost: Lost) -> set[int]:
    """Each of the accepted has what the backup has of them, or is told that it is gone and asks anew.

    Returns the numbers of the latter.
    """
    gone = set()
    for person in lost.accepted:
        status, words = await look(crowd, person)
        if status == 200:
            assert words["id"] == person.lease and words["status"] in OVER
            assert person.asked < lost.ended
        else:
            assert (status, words["type"]) == (404, "urn:lablink:no-such-lease")
            assert "it is gone: ask again" in words["detail"]
            assert person.told > lost.began
            await ask_anew(crowd, person)
            gone.add(crowd.people.index(person))
    assert 0 < len(gone) < len(lost.accepted)
    return gone


async def ask_anew(crowd: Crowd, person: Person) -> None:
    """The same request with the same key: one new lease, however often."""
    before = person.lease
    for _ in range(2):
        again = await answered(partial(crowd.ask, person))
        assert again.status_code == 201
    assert person.lease != before
