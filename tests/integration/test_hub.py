"""A command reaches its machine over the hub, and nobody there is anybody else."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import create_server

import pytest
from websockets.exceptions import InvalidStatus

from allocator.server import new_server
from allocator.tokens import sha256
from client.protocol import HUB_MESSAGE_BYTES
from client.transport import UnknownVm, Unreachable
from tests.support.certificates import Authority
from tests.support.database import Database
from tests.support.front import Front
from tests.support.hub import HELLO, NOTHING, has_heard_all, hub_machine, hub_transport, talking
from tests.support.machine import AS_ROOT, Machine, Pool, reached, started_client
from tests.support.service import RunningService, ready, running_service, settings_for

pytestmark = pytest.mark.usefixtures("service")
"""It comes first, as it says what its pool accepts; `pool` then says what these tests need."""


@asynccontextmanager
async def at_work(service: RunningService, machine: Machine, url: str = "") -> AsyncIterator[None]:
    """The machine serves over the hub, and has said hello there."""
    async with machine.serving_over(hub_transport(machine, url or service.url)):
        await reached(lambda: service.service.hub.machines == 1)
        yield


async def test_a_wake_up_brings_the_command_long_before_the_next_hello(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    await pool.hello_every(600)
    async with at_work(service, machine):
        lease = await pool.finished(await pool.request_job(machine.job("echo served")))
        assert (lease["status"], lease["exit_code"], lease["output"]) == ("active", 0, "served\n")
        await pool.end(lease["id"])
        await pool.available(machine)
    sessions = await pool.owner.fetchval("SELECT count(*) FROM pg_stat_activity WHERE usename = $1", machine.vm.role)
    assert sessions == 0
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_desktop_with_its_code_and_pin_arrives(service: RunningService, pool: Pool, machine: Machine) -> None:
    async with at_work(service, machine):
        lease = await pool.settled(await pool.request_desktop())
    assert (lease["status"], lease["exit_code"]) == ("active", 0)
    assert machine.count_starts() == 1


async def test_what_a_machine_that_reads_is_told_goes_straight_to_its_socket(
    service: RunningService, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("allocator.link.Link._send")
    async with talking(service.url, machine.address.password) as line:
        await line.say(HELLO)
        assert "answer" in await line.answered()


async def test_only_the_machine_that_changed_is_woken(
    database: Database, service: RunningService, pool: Pool, machine: Machine, tmp_path: Path
) -> None:
    other = await hub_machine(database, tmp_path / "other", "vm-2")
    async with (
        talking(service.url, machine.address.password) as one,
        talking(service.url, other.address.password) as two,
    ):
        for talker in (one, two):
            await talker.say(HELLO)
            assert "answer" in await talker.answered()
        await has_heard_all(service, pool.owner)
        for talker in (one, two):
            await talker.say(HELLO)
            assert "answer" in await talker.answered()
        await pool.owner.execute("SELECT fail_vm('vm-2')")
        assert await two.hears() == {"wake": True}
        await one.say(HELLO)
        assert (await one.hears())["answer"]["hostname"] == "vm-1"


async def test_a_link_that_is_cut_is_replaced_and_what_was_missed_is_found(
    service: RunningService, pool: Pool, machine: Machine, front: Front
) -> None:
    await pool.hello_every(600)
    async with at_work(service, machine, front.url):
        front.cut()
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
    assert machine.count_starts() == 1


async def test_a_link_that_is_dead_without_saying_so_is_noticed(
    service: RunningService, pool: Pool, machine: Machine, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.link.PING_SECONDS", 0.2)
    monkeypatch.setattr("client.link.PONG_SECONDS", 0.5)
    await pool.hello_every(600)
    async with at_work(service, machine, front.url):
        front.stalls = True
        before = front.accepted
        await reached(lambda: front.accepted > before)
        front.stalls = False
        front.cut()
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"


async def test_machines_go_to_another_allocator_when_theirs_stops(
    database: Database, service: RunningService, pool: Pool, machine: Machine, front: Front, tmp_path: Path
) -> None:
    await pool.hello_every(600)
    settings = settings_for(database, tmp_path, "pool.programs=[sh]")
    async with running_service(settings) as other, at_work(service, machine, front.url):
        await ready(other.service)
        lease = await pool.request_job(machine.job("sleep 60"))
        await pool.settled(lease)
        front.lead_to(other.url)

        await service.stop()

        await reached(lambda: other.service.hub.machines == 1)
        assert (await pool.lease(lease))["status"] == "active"
        await pool.end(lease)
        await pool.available(machine)
    assert machine.count_starts() == 1


async def test_a_machine_that_comes_again_takes_the_place_of_its_older_self(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with talking(service.url, machine.address.password) as older:
        await older.say(HELLO)
        await older.answered()
        async with talking(service.url, machine.address.password) as newer:
            await newer.say(HELLO)
            await newer.answered()
            assert await older.is_closed() == 1012
            await pool.owner.execute("SELECT fail_vm('vm-1')")
            assert await newer.hears() == {"wake": True}


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer x"}, {"Authorization": f"Basic {'a' * 64}"}])
async def test_who_shows_no_token_is_not_let_in(service: RunningService, headers: dict[str, str]) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with talking(service.url, None, **headers):
            pass
    assert refused.value.response.status_code == 401


async def test_a_browser_is_not_let_in(service: RunningService, machine: Machine) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with talking(service.url, machine.address.password, Origin=service.url):
            pass
    assert refused.value.response.status_code == 401


async def test_a_token_that_is_nobodys_is_refused_and_cut_off(service: RunningService, machine: Machine) -> None:
    async with talking(service.url, "some other password") as stranger:
        await stranger.say(HELLO)
        assert (await stranger.hears())["refused"] == "LL010"
        assert await stranger.is_closed() == 1008


@pytest.mark.parametrize(
    "words",
    [
        "not json",
        b"bytes",
        "[]",
        "{}",
        "null",
        "[" * 100_000,
        '{"verb": "hello", "epoch": "x"}',
        '{"verb": "hello", "epoch": -1}',
        '{"verb": "hello", "epoch": 9999999999999999999}',
        '{"verb": "hello", "epoch": 0, "lease_id": 7}',
        '{"verb": "claim", "epoch": 0}',
    ],
)
async def test_who_does_not_begin_with_a_hello_is_cut_off(
    service: RunningService, machine: Machine, words: str | bytes
) -> None:
    async with talking(service.url, machine.address.password) as hostile:
        await hostile.say(words)
        assert await hostile.is_closed() == 1008


async def test_who_says_more_than_any_report_is_cut_off(service: RunningService, machine: Machine) -> None:
    async with talking(service.url, machine.address.password) as hostile:
        await hostile.say("x" * (HUB_MESSAGE_BYTES + 1))
        assert await hostile.is_closed() == 1009


async def test_the_longest_report_there_is_arrives(service: RunningService, pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    async with talking(service.url, machine.address.password) as talker:
        for words in (HELLO, {"verb": "claim", "epoch": 1}):
            await talker.say(words)
            assert "answer" in await talker.answered()
        told = {"verb": "report", "lease_id": str(lease), "epoch": 1, "outcome": "exited", "exit_code": 0}
        await talker.say({**told, "output": "\x01" * 1000 + "ü" * 64_000})
        assert await talker.answered() == {"answer": "active"}
    assert (await pool.lease(lease))["output"] == "ü" * 64_000


async def test_a_machine_that_is_no_more_learns_it_over_the_hub(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    async with hub_transport(machine, service.url) as transport:
        await transport.hello(NOTHING)
        await pool.owner.execute("SELECT retire_vm('vm-1')")
        with pytest.raises(UnknownVm):
            await transport.hello(NOTHING)


async def test_a_refused_token_is_believed_only_when_it_stays_refused(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    await pool.owner.execute("UPDATE vm_roles SET hub_sha256 = NULL")
    async with hub_transport(machine, service.url) as patient:
        with pytest.raises(Unreachable):
            await patient.hello(NOTHING)
    async with hub_transport(machine, service.url, refused_patience=0.0) as other:
        with pytest.raises(UnknownVm):
            await other.hello(NOTHING)


async def test_a_machine_makes_itself_a_new_password_while_its_lease_goes_on(
    service: RunningService, pool: Pool, machine: Machine
) -> None:
    await pool.hello_every(0.2)
    old = machine.address.password
    async with at_work(service, machine):
        lease = await pool.request_job(machine.job("sleep 60"))
        await pool.settled(lease)
        await pool.owner.execute("SELECT rotate_vm('vm-1')")
        await reached(lambda: machine.passwords().credential.database.password != old)
        assert (await pool.lease(lease))["status"] == "active"
    async with talking(service.url, old) as thief:
        await thief.say(HELLO)
        assert (await thief.hears())["refused"] == "LL010"


async def test_a_machine_enrols_and_serves_without_a_way_to_the_database(database: Database, tmp_path: Path) -> None:
    token, root = secrets.token_urlsafe(32), tmp_path / "vm"
    root.mkdir()
    async with running_service(settings_for(database, tmp_path, "transport=hub", "transport.port=1")) as running:
        await ready(running.service)
        pool = await Pool.of(database)
        await pool.owner.execute("SELECT invite_vm('vm-1', 'default', $1)", sha256(token))
        (root / "join-token").write_text(token)
        settings = {"allocator_url": running.url, "join_token_file": "join-token", **AS_ROOT}
        (root / "settings.json").write_text(json.dumps(settings))
        client = await started_client(root)
        try:
            await pool.until("SELECT EXISTS (SELECT FROM vms WHERE status = 'available')")
            lease = await pool.finished(await pool.request_job(["sh", "-c", "echo over the hub"]))
            assert (lease["status"], lease["output"]) == ("active", "over the hub\n")
        finally:
            await client.kill()


async def test_over_the_network_the_hub_is_spoken_to_over_tls_and_only_with_the_right_one(
    database: Database, machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority.under(tmp_path)
    files = tmp_path / "web.crt", tmp_path / "web.key"
    for file, content in zip(files, authority.issue("localhost"), strict=True):
        file.write_bytes(content)
    told = (f"server.certificate={files[0]}", f"server.key={files[1]}", "server.public_url=https://localhost")
    server = new_server(settings_for(database, tmp_path, *told))
    with create_server(("127.0.0.1", 0)) as listener:
        serving = asyncio.create_task(server.serve([listener]))
        url = f"https://localhost:{listener.getsockname()[1]}"
        await reached(lambda: server.started)
        async with hub_transport(machine, url) as suspicious:
            with pytest.raises(Unreachable, match="cannot be trusted"):
                await suspicious.hello(NOTHING)
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
        async with hub_transport(machine, url) as transport:
            assert (await transport.hello(NOTHING)).hostname == "vm-1"
        server.should_exit = True
        await serving
