"""What a machine makes of the commands that it is given, and what becomes of their leases."""

from pathlib import Path

import pytest

from client import agent
from tests.support.machine import Machine, Pool, reached


async def test_a_desktop_is_active_once_start_host_has_exited_with_0(pool: Pool, machine: Machine) -> None:
    machine.start_host('read pin; echo "got $pin"; echo "$@"')
    async with machine.serving():
        lease = await pool.settled(await pool.request_desktop(pin="987654"))
    assert (lease["status"], lease["exit_code"]) == ("active", 0)
    assert "987654" not in lease["output"]
    assert "4/0AbCdEfGhIjKl" not in lease["output"]


async def test_a_code_that_is_refused_costs_nobody_the_machine(pool: Pool, machine: Machine) -> None:
    machine.start_host('echo "OAuth error."; exit 1')
    async with machine.serving():
        lease = await pool.settled(await pool.request_desktop())
        assert (lease["status"], lease["trouble"], lease["exit_code"]) == ("assigned", "code-used", 1)
        machine.start_host('read pin; echo "got $pin"')
        await pool.renew_line(lease["id"])
        assert (await pool.settled(lease["id"]))["status"] == "active"


async def test_a_job_that_cannot_be_started_fails_visibly(pool: Pool, machine: Machine) -> None:
    await pool.owner.execute("UPDATE pools SET programs = ARRAY['no-such-program']")
    async with machine.serving():
        lease = await pool.settled(await pool.request_job(["no-such-program"]))
        assert (lease["status"], lease["failure"]) == ("failed", "not-installed")
        await pool.available(machine)


async def test_a_job_that_ends_at_once_is_reported_once(
    pool: Pool, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agent, "_AT_ONCE_SECONDS", 20.0)
    async with machine.serving():
        lease = await pool.finished(await pool.request_job(["sh", "-c", "echo hello"]))
        assert (lease["status"], lease["exit_code"], lease["output"]) == ("active", 0, "hello\n")
        assert lease["started_at"] is not None
        await reached(lambda: "reported exited" in machine.steps)
    assert [step for step in machine.steps if step.startswith("reported")] == ["reported exited"]


async def test_a_job_that_goes_on_is_reported_twice(pool: Pool, machine: Machine) -> None:
    async with machine.serving():
        await pool.request_job(machine.job(f"until test -e {machine.starts}.go; do sleep 0.01; done"))
        await reached(lambda: "reported started" in machine.steps)
        Path(f"{machine.starts}.go").touch()
        await reached(lambda: "reported exited" in machine.steps)
    assert [step for step in machine.steps if step.startswith("reported")] == ["reported started", "reported exited"]


async def test_a_line_typed_in_psql_is_read_and_run_by_the_machine(pool: Pool, machine: Machine) -> None:
    async with machine.serving():
        await pool.owner.execute(
            "UPDATE vms SET status = 'in-use', email = 'a@example.org', crd_command = $2 WHERE id = $1",
            machine.vm.id,
            f"sh -c 'echo x >> {machine.starts}'",
        )
        await pool.until("SELECT status = 'active' FROM leases WHERE vm_id = $1", machine.vm.id)
        await reached(lambda: machine.count_starts() == 1)


async def test_a_job_typed_in_psql_is_a_job_whatever_it_prints(pool: Pool, machine: Machine) -> None:
    async with machine.serving():
        await pool.owner.execute(
            "UPDATE vms SET status = 'in-use', crd_command = 'sh -c \"echo start-host\"' WHERE id = $1", machine.vm.id
        )
        lease = await pool.owner.fetchval("SELECT id FROM leases")
        ended = await pool.finished(lease)
    assert (ended["kind"], ended["status"], ended["exit_code"]) == ("job", "active", 0)


async def test_a_line_that_the_grammar_refuses_fails_its_lease_with_the_reason(pool: Pool, machine: Machine) -> None:
    async with machine.serving():
        await pool.owner.execute(
            "UPDATE vms SET status = 'in-use', crd_command = 'rm -rf / ; echo' WHERE id = $1", machine.vm.id
        )
        await pool.until("SELECT failure = 'refused' FROM leases WHERE vm_id = $1", machine.vm.id)
        await pool.available(machine)
    assert "Give one command only" in await pool.owner.fetchval("SELECT output FROM leases")


async def test_a_lease_that_ends_stops_its_command_and_leaves_nothing(pool: Pool, machine: Machine) -> None:
    async with machine.serving():
        lease = await pool.request_job(machine.job("echo secret > file; sleep 60"))
        await pool.settled(lease)
        await pool.end(lease)
        await pool.available(machine)
        assert not machine.state.session.exists()
        again = await pool.settled(await pool.request_job(machine.job("ls -A")))
        assert again["status"] == "active"
        assert "file" not in ((await pool.finished(again["id"]))["output"] or "")
