"""A machine whose journal is damaged, unwritable or ahead of the database takes no risk and comes back."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from client.agent import Agent
from client.direct import DirectTransport
from client.executor import OwnExecutor
from client.journal import Journal
from client.records import Key, decode
from client.runner import Programs
from client.session import Session
from tests.support.database import Database
from tests.support.journals import opened
from tests.support.machine import Machine, Pool, reached

SMALL = "256k"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system that is soon full."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL}", "tmpfs", str(place)]
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("this user may not mount a small file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def damage(machine: Machine) -> None:
    """Flip one bit of the journal's first line."""
    data = machine.state.journal.read_bytes()
    machine.state.journal.write_bytes(bytes([data[0] ^ 1]) + data[1:])


def failing_fsync(when: str) -> list[str]:
    """Words that run a client whose fsyncs fail: `when` counts them ("3" the third only, "3+" from the third on)."""
    if shutil.which("strace") is None or subprocess.run(["strace", "-qq", "true"], check=False).returncode != 0:
        pytest.skip("strace cannot inject faults here")
    return ["strace", "-qq", "-f", "-o", "/dev/null", "-e", "trace=fsync", "-e", f"inject=fsync:error=EIO:when={when}"]


async def comes_back_clean(pool: Pool, machine: Machine) -> None:
    await pool.available(machine)
    assert not machine.state.session.exists()
    assert await pool.owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_free_machine_with_a_damaged_journal_is_wiped_and_serves_the_next_lease(
    pool: Pool, machine: Machine
) -> None:
    damage(machine)
    (machine.state.session / "left").mkdir(parents=True)
    async with machine.serving():
        await reached(lambda: decode(machine.state.journal.read_bytes()).whole)
        lease = await pool.finished(await pool.request_job(machine.job("ls -A")))
    assert (lease["status"], lease["output"]) == ("active", "tmp\n")


@pytest.mark.parametrize("claimed", [False, True])
async def test_what_a_damaged_journal_may_have_started_is_not_started(
    pool: Pool, machine: Machine, claimed: bool
) -> None:
    lease = await pool.request_job(machine.job())
    if claimed:
        await (await machine.vm.connect()).execute("SELECT client_api.claim(1)")
    damage(machine)
    async with machine.serving():
        assert (await pool.settled(lease))["failure"] == "unknown"
        await comes_back_clean(pool, machine)
    assert machine.count_starts() == 0


async def test_the_holder_of_a_desktop_on_a_machine_whose_journal_got_damaged_is_asked_for_a_line(
    pool: Pool, machine: Machine
) -> None:
    lease = await pool.request_desktop()
    async with machine.serving():
        await pool.finished(lease)
    damage(machine)
    async with machine.serving():
        await pool.until("SELECT needs_line FROM leases WHERE id = $1", lease)
        assert (await pool.lease(lease))["trouble"] == "unknown"
        await pool.end(lease)
        await comes_back_clean(pool, machine)


async def test_a_journal_that_is_gone_counts_as_damaged(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    machine.state.journal.unlink()
    async with machine.serving():
        assert (await pool.settled(lease))["failure"] == "unknown"
        await comes_back_clean(pool, machine)
    assert machine.count_starts() == 0


@pytest.mark.parametrize("epoch", [1, 50])
async def test_a_database_that_is_behind_the_machine_fails_the_lease_and_jumps_ahead(
    pool: Pool, machine: Machine, epoch: int
) -> None:
    lease = await pool.request_job(machine.job())
    opened(machine.state.journal).intend(Key(uuid4(), epoch))
    async with machine.serving():
        assert (await pool.settled(lease))["failure"] == "database-restored"
        await comes_back_clean(pool, machine)
        again = await pool.finished(await pool.request_job(machine.job()))
        assert again["epoch"] > epoch
    assert machine.count_starts() == 1


async def test_a_lease_at_an_epoch_that_the_machine_is_fenced_at_is_not_started(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    opened(machine.state.journal).fence_off(1)
    async with machine.serving():
        assert (await pool.settled(lease))["failure"] == "database-restored"
        await comes_back_clean(pool, machine)
    assert machine.count_starts() == 0


async def test_a_machine_whose_disk_a_job_filled_cleans_itself_and_comes_back(
    pool: Pool, database: Database, small_disk: Path
) -> None:
    machine = Machine.of(await database.vm("small"), small_disk / "vm")
    async with machine.serving():
        lease = await pool.finished(await pool.request_job(machine.job("cat /dev/zero > big")))
        assert lease["exit_code"] == 1
        with pytest.raises(OSError, match="No space left"):
            (small_disk / "full").write_bytes(b"x" * 10_000)
        (small_disk / "full").unlink()
        await pool.end(lease["id"])
        await comes_back_clean(pool, machine)


async def test_a_machine_whose_journal_cannot_be_written_says_so_and_waits_for_an_admin(
    pool: Pool, machine: Machine
) -> None:
    obstacle = machine.state.root / "journal.new"
    async with machine.serving():
        lease = await pool.request_job(machine.job("sleep 600"))
        await pool.settled(lease)
        obstacle.mkdir()
        await pool.end(lease)
        await pool.until("SELECT reason LIKE 'unhealthy: the journal cannot be written%' FROM vms")
        obstacle.rmdir()
        for _ in range(2):  # a look that began before may still tell of it
            now = await pool.owner.fetchval("SELECT clock() FROM pg_notify('vm_updates', '')")
            await pool.until("SELECT seen_at > $1 FROM vm_heartbeats", now)
        await pool.owner.execute("SELECT return_vm($1)", machine.vm.hostname)
        await comes_back_clean(pool, machine)


async def test_a_machine_that_starts_with_a_full_disk_takes_no_work(pool: Pool, machine: Machine) -> None:
    lease = await pool.request_job(machine.job())
    (machine.state.root / "journal.new").mkdir()
    async with machine.serving():
        await pool.until("SELECT status = 'queued' FROM leases WHERE id = $1", lease)
        assert (await pool.lease(lease))["trouble"] == "vm-failed"
    assert machine.count_starts() == 0


async def test_an_intent_whose_fsync_failed_starts_nothing_and_is_believed_only_once_it_is_read_again(
    pool: Pool, machine: Machine
) -> None:
    await machine.start(under=failing_fsync("3"))  # opening the journal takes two
    lease = await pool.settled(await pool.request_job(machine.job()))
    assert (lease["status"], lease["failure"]) == ("failed", "unknown")
    await comes_back_clean(pool, machine)
    assert machine.count_starts() == 0


async def test_a_machine_whose_fsyncs_keep_failing_is_out_of_service(pool: Pool, machine: Machine) -> None:
    await machine.start(under=failing_fsync("3+"))
    lease = await pool.request_job(machine.job())
    await pool.until("SELECT trouble = 'vm-failed' OR failure = 'vm-failed' FROM leases WHERE id = $1", lease)
    assert await pool.owner.fetchval("SELECT reason FROM vms") == (
        "unhealthy: the journal cannot be written: Input/output error"
    )
    assert machine.count_starts() == 0


async def test_a_machine_that_is_refused_asks_less_and_less_often(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.direct._SESSION", {})  # PostgreSQL may take its time to refuse it
    opened(machine.state.journal).fence_off(10**15)  # which no machine was ever at
    async with DirectTransport(machine.address) as transport:
        executor = OwnExecutor(Session(machine.state.session), Programs())
        agent = Agent(transport, Journal(machine.state.journal), executor)
        assert [await agent.look() for _ in range(6)] == [1, 2, 4, 8, 10, 10]
