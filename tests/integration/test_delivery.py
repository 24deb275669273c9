"""An assignment reaches its machine, and its outcome comes back, whatever gets lost in between."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import pytest_asyncio

from client.boot import Boot
from client.protocol import CHANNEL
from tests.support.database import Database
from tests.support.journals import opened
from tests.support.machine import Machine, Pool, reached
from tests.support.wire import Wire

VERBS = ["claim", "report", "cleaned"]
OLDER = """
    ALTER FUNCTION client_api.hello(bigint, uuid, integer) RENAME TO newer_hello;
    CREATE FUNCTION client_api.hello(p_epoch bigint, p_lease uuid)
    RETURNS TABLE (vm_id integer, hostname text, status text, epoch bigint, lease_id uuid, lease_status text, kind text,
                   period_seconds double precision)
    LANGUAGE sql SECURITY DEFINER BEGIN ATOMIC SELECT * FROM client_api.newer_hello(p_epoch, p_lease, NULL); END;
    GRANT EXECUTE ON FUNCTION client_api.hello(bigint, uuid) TO lablink_client"""
"""Makes hello take what it took in version 8."""


@pytest_asyncio.fixture
async def machine(database: Database, wire: Wire, tmp_path: Path) -> AsyncIterator[Machine]:
    machine = Machine.of(await database.vm(), tmp_path / "vm", wire.port)
    yield machine
    await machine.stop()


@asynccontextmanager
async def hello_of(pool: Pool, machine: Machine) -> AsyncIterator[None]:
    """What is done inside is followed by a hello of the machine."""
    last = await pool.owner.fetchval("SELECT seen_at FROM vm_heartbeats WHERE vm_id = $1", machine.vm.id)
    yield
    await pool.until("SELECT seen_at > $2 FROM vm_heartbeats WHERE vm_id = $1", machine.vm.id, last)


@asynccontextmanager
async def at_work(pool: Pool, machine: Machine, **options: float) -> AsyncIterator[None]:
    """The machine's client serves, and has said hello."""
    async with AsyncExitStack() as serving:
        async with hello_of(pool, machine):
            await serving.enter_async_context(machine.serving(**options))
        yield


async def test_a_notification_brings_the_command_long_before_the_next_hello(pool: Pool, machine: Machine) -> None:
    await pool.hello_every(600)
    async with at_work(pool, machine):
        lease = await pool.settled(await pool.request_job(machine.job()))
        assert lease["status"] == "active"


async def test_a_dropped_notification_costs_one_period(pool: Pool, machine: Machine, wire: Wire) -> None:
    await pool.hello_every(0.3)
    wire.drops_notifications = True
    async with at_work(pool, machine):
        lease = await pool.finished(await pool.request_job(machine.job()))
        assert lease["status"] == "active"
        await pool.end(lease["id"])
        await pool.available(machine)


async def test_a_cut_connection_is_replaced_and_what_was_missed_is_found(
    pool: Pool, machine: Machine, wire: Wire
) -> None:
    await pool.hello_every(600)
    async with at_work(pool, machine):
        wire.cut()
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"


async def test_a_terminated_backend_is_replaced(pool: Pool, machine: Machine) -> None:
    async with at_work(pool, machine):
        for _ in range(3):
            async with hello_of(pool, machine):
                await pool.owner.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", machine.vm.role
                )
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
        await pool.until("SELECT count(*) = 1 FROM pg_stat_activity WHERE usename = $1", machine.vm.role)


@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_connection_that_is_cut_at_its_first_words_is_tried_again(
    pool: Pool, machine: Machine, wire: Wire, what: str
) -> None:
    loss = wire.lose("request" if what == "request" else "answer", f'LISTEN "{CHANNEL}"')
    async with machine.serving():
        await loss.happened.wait()
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
        assert wire.accepted == 2


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_verb_that_got_lost_is_repeated(pool: Pool, machine: Machine, wire: Wire, verb: str, what: str) -> None:
    async with at_work(pool, machine):
        loss = wire.lose("request" if what == "request" else "answer", f"client_api.{verb}(")
        lease = await pool.finished(await pool.request_job(machine.job()))
        assert lease["status"] == "active"
        await pool.end(lease["id"])
        await pool.available(machine)
    assert loss.happened.is_set()
    assert machine.count_starts() == 1
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


@pytest.mark.parametrize("what", ["request", "answer"])
async def test_a_lost_hello_is_repeated(pool: Pool, machine: Machine, wire: Wire, what: str) -> None:
    loss = wire.lose("request" if what == "request" else "answer", "client_api.hello(")
    async with machine.serving():
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"
    assert loss.happened.is_set()


@pytest.mark.parametrize("payload", ["", "not json", "[]", "[{}]", '{"id": 1}', "[" * 5000, '[{"id": 1e999}]', "null"])
async def test_a_garbage_notification_makes_the_machine_look_and_nothing_else(
    pool: Pool, machine: Machine, payload: str
) -> None:
    async with at_work(pool, machine):
        async with hello_of(pool, machine):
            await pool.owner.execute("SELECT pg_notify($1, $2)", CHANNEL, payload)
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"


async def test_a_forged_assignment_starts_nothing(pool: Pool, machine: Machine) -> None:
    forged = f'[{{"id": {machine.vm.id}, "hostname": "{machine.vm.hostname}", "status": "in-use", "epoch": 99}}]'
    async with at_work(pool, machine), hello_of(pool, machine):
        await pool.owner.execute("SELECT pg_notify($1, $2)", CHANNEL, forged)
    assert machine.count_starts() == 0
    assert opened(machine.state.journal).memory.epoch == 0


async def test_a_flood_of_forged_notifications_does_not_become_a_flood_of_hellos(
    pool: Pool, machine: Machine, database: Database
) -> None:
    await pool.owner.execute("CREATE TABLE hellos (at timestamptz DEFAULT clock_timestamp())")
    await pool.owner.execute(
        "CREATE FUNCTION count_hello() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS "
        "$$ BEGIN INSERT INTO public.hellos DEFAULT VALUES; RETURN NULL; END $$"
    )
    await pool.owner.execute(
        "CREATE TRIGGER count_hello AFTER UPDATE ON vm_heartbeats FOR EACH ROW EXECUTE FUNCTION count_hello()"
    )
    forged = f'[{{"id": {machine.vm.id}, "hostname": "x", "status": "in-use", "epoch": 99}}]'
    async with at_work(pool, machine):
        began = time.monotonic()
        for number in range(2000):
            await pool.owner.execute("SELECT pg_notify($1, $2)", CHANNEL, f"{forged}{' ' * (number % 500)}")
        lease = await pool.settled(await pool.request_job(machine.job()))
        seconds = time.monotonic() - began
    assert lease["status"] == "active"
    assert await pool.owner.fetchval("SELECT count(*) FROM hellos") <= 15 + 6 * seconds


async def test_an_outage_is_ridden_out_without_help_and_the_command_runs_on(
    pool: Pool, machine: Machine, wire: Wire
) -> None:
    async with machine.serving():
        lease = await pool.request_job(machine.job(f"until [ -e {machine.state.root}/go ]; do sleep 0.01; done"))
        await pool.settled(lease)
        before = wire.accepted
        with wire.down():
            (machine.state.root / "go").touch()
            await reached(lambda: wire.accepted >= before + 3)
        assert (await pool.finished(lease))["exit_code"] == 0
    assert machine.count_starts() == 1


async def test_a_machine_that_is_held_by_hand_runs_nothing_and_is_cleaned_afterwards(
    pool: Pool, machine: Machine
) -> None:
    async with machine.serving():
        async with hello_of(pool, machine):
            await pool.owner.execute("UPDATE vms SET status = 'in-use' WHERE id = $1", machine.vm.id)
        await pool.owner.execute("UPDATE vms SET status = 'available' WHERE id = $1", machine.vm.id)
        await pool.available(machine)


async def test_a_connection_that_does_not_listen_is_noticed_and_replaced(
    pool: Pool, machine: Machine, wire: Wire
) -> None:
    wire.misheard[b'LISTEN "vm_updates"'] = b'LISTEN "other_name"'
    async with machine.serving(check_seconds=0.1):
        await reached(lambda: wire.accepted >= 2)
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"


async def test_a_connection_that_is_dead_without_saying_so_is_noticed_and_replaced(
    pool: Pool, machine: Machine, wire: Wire
) -> None:
    async with at_work(pool, machine, check_seconds=0.1, check_limit=0.2):
        await pool.until(
            "SELECT bool_and(hub_sha256 IS NOT NULL) FROM vm_roles"
        )  # the last that is asked before the wait
        wire.stalls, before = True, wire.accepted
        await reached(lambda: wire.accepted > before)
        wire.stalls = False
        wire.cut()
        assert (await pool.settled(await pool.request_job(machine.job())))["status"] == "active"


async def test_many_machines_at_once_each_run_their_own_command(
    pool: Pool, database: Database, wire: Wire, tmp_path: Path
) -> None:
    machines = [Machine.of(await database.vm(f"vm-{n}"), tmp_path / str(n), wire.port) for n in range(5)]
    async with asyncio.TaskGroup() as group:
        stop = asyncio.Event()
        for machine in machines:
            group.create_task(_serve_until(machine, stop))
        leases = [await pool.request_job(["sh", "-c", "pwd"]) for _ in machines]
        finished = [await pool.finished(lease) for lease in leases]
        stop.set()
    assert len({lease["output"] for lease in finished}) == len(machines)


async def _serve_until(machine: Machine, stop: asyncio.Event) -> None:
    async with machine.serving():
        await stop.wait()


async def test_a_report_that_a_restored_database_has_forgotten_is_made_again(pool: Pool, machine: Machine) -> None:
    async with at_work(pool, machine):
        lease = (await pool.settled(await pool.request_job(machine.job())))["id"]
        await pool.until("SELECT exit_code = 0 FROM leases WHERE id = $1", lease)
        await restored_to_the_claim(pool, lease)
        await pool.owner.execute("SELECT pg_notify('vm_updates', 'look')")
        await pool.until("SELECT status = 'active' AND exit_code = 0 FROM leases WHERE id = $1", lease)
    assert machine.count_starts() == 1


async def restored_to_the_claim(pool: Pool, lease: UUID) -> None:
    """The lease as a backup has it that was made between claim and report."""
    async with pool.owner.transaction():
        await pool.owner.execute("ALTER TABLE leases DISABLE TRIGGER USER")
        await pool.owner.execute(
            "UPDATE leases SET status = 'claimed', started_at = NULL, active_at = NULL, exit_code = NULL, "
            "deadline = clock() + interval '1 hour' WHERE id = $1",
            lease,
        )
        await pool.owner.execute("ALTER TABLE leases ENABLE TRIGGER USER")


async def test_the_first_hello_is_followed_by_how_the_machine_booted(pool: Pool, machine: Machine) -> None:
    boot = Boot(uuid4(), (("cloud-init", 12.5), ("ready-check", 0.5)))
    machine.boot = boot
    for _ in range(2):
        async with at_work(pool, machine):
            await pool.until("SELECT EXISTS (SELECT FROM boots WHERE boot_id = $1)", boot.id)

    assert await pool.owner.fetchval("SELECT seconds::float8 FROM boots") == 13.0


async def test_a_client_serves_a_database_that_counts_no_boots(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute("DROP FUNCTION client_api.booted")
    machine.boot = Boot(uuid4(), (("ready-check", 0.5),))
    async with at_work(pool, machine):
        lease = await pool.finished(await pool.request_job(machine.job("echo hello")))

    assert lease["output"] == "hello\n"


async def test_a_client_that_is_newer_than_the_database_serves(pool: Pool, machine: Machine) -> None:
    await pool.hello_every(0.2)
    await machine.start()
    lease = await pool.settled(await pool.request_job(machine.job("sleep 60")))
    await pool.until("SELECT used_at IS NOT NULL FROM vm_heartbeats")
    await pool.owner.execute(OLDER)
    since = await pool.owner.fetchval("SELECT clock()")
    await pool.until("SELECT seen_at > $1::timestamptz + interval '1 s' FROM vm_heartbeats", since)
    assert (await pool.lease(lease["id"]))["status"] == "active"
