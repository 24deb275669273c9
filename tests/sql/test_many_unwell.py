"""A bad check takes nobody's machine who works on it: lent machines that are not well leave service up to a limit."""

import asyncio
from collections import Counter

import asyncpg
import pytest

from tests.sql.speaking import call, known
from tests.sql.steps import Machine, ask, machine, machines
from tests.support.database import Database

ILL = "check gpu: it has fallen off the bus"
NOTED = "SELECT hostname FROM events WHERE kind = $1 ORDER BY id"
STATUSES = "SELECT status, count(*) FROM vms GROUP BY status"


async def statuses(owner: asyncpg.Connection) -> Counter[str]:
    return Counter({row["status"]: row["count"] for row in await owner.fetch(STATUSES)})


async def all_lent(database: Database, service: asyncpg.Connection, number: int) -> list[Machine]:
    """So many machines of one pool, on each of which somebody works, at epoch 1."""
    fleet = []
    for n in range(1, number + 1):
        vm = await machine(database, f"vm-{n}")
        await ask(service, f"{vm.hostname}@example.org")
        await vm.run()
        fleet.append(vm)
    return fleet


async def fall_ill(fleet: list[Machine]) -> list[str]:
    """What is answered to each."""
    return [await vm.unhealthy(1, ILL) for vm in fleet]


async def noted(owner: asyncpg.Connection, kind: str) -> list[str]:
    return [row["hostname"] for row in await owner.fetch(NOTED, kind)]


async def said(owner: asyncpg.Connection, question: str) -> dict[str, str]:
    """What does not hold, by what it is about."""
    return {row["what"]: row["detail"] for row in await owner.fetch(f"SELECT * FROM {question} WHERE NOT holds")}


async def test_a_check_that_fails_everywhere_takes_a_fifth_and_the_others_keep_their_machines(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 10)
    assert await fall_ill(fleet) == ["failed"] * 2 + ["in-use"] * 8

    await database.let_pass(3600)
    assert await fall_ill(fleet[2:]) == ["in-use"] * 8
    assert await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'active'") == 8
    assert await noted(owner, "vm.unwell") == [vm.hostname for vm in fleet[2:]]
    alert = await owner.fetch("SELECT detail FROM events WHERE kind = 'alert.checks'")
    assert [row["detail"] for row in alert] == ['{"pool": "default", "fleet": 10, "unwell": 3}']
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_machines_that_nobody_has_leave_service_without_limit_and_nobody_elses_is_taken_then(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await machines(database, 10)
    await ask(service)
    lent = await owner.fetchval("SELECT hostname FROM vms WHERE status = 'in-use'")
    assert [await vm.unhealthy(0, ILL) for vm in fleet if vm.hostname != lent] == ["failed"] * 9
    assert [await vm.unhealthy(1, ILL) for vm in fleet if vm.hostname == lent] == ["in-use"]


async def test_a_few_that_fail_are_taken_out_a_fifth_every_five_minutes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 10)
    assert await fall_ill(fleet[:4]) == ["failed", "failed", "in-use", "in-use"]
    await database.let_pass(301)
    assert await fall_ill(fleet[2:4]) == ["failed", "failed"]
    assert await fall_ill(fleet[4:5]) == ["in-use"]


@pytest.mark.parametrize(("number", "answers"), [(1, ["failed"]), (3, ["failed", "failed", "in-use"])])
async def test_of_a_small_pool_two_may_go_and_the_last_stays(
    database: Database, service: asyncpg.Connection, number: int, answers: list[str]
) -> None:
    fleet = await all_lent(database, service, number)
    assert await fall_ill(fleet) == answers
    await database.let_pass(3600)
    assert await fall_ill(fleet[2:]) == answers[2:]


async def test_when_the_others_are_well_again_the_one_that_is_not_goes(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 10)
    await fall_ill(fleet)
    await database.let_pass(301)
    for vm in fleet[2:9]:
        assert [await vm.well(1), await vm.well(1)] == ["in-use", "in-use"]
    assert await noted(owner, "vm.well") == [vm.hostname for vm in fleet[2:9]]

    assert await fall_ill(fleet[9:]) == ["failed"]


async def test_a_machine_that_stayed_is_not_lent_on_while_its_check_fails(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    *_, vm = fleet = await all_lent(database, service, 3)
    await fall_ill(fleet)
    await service.execute("SELECT end_lease(lease_id) FROM vms WHERE hostname = $1", vm.hostname)
    assert await vm.unhealthy(2, ILL) == "failed"
    assert await statuses(owner) == {"failed": 3}


async def test_what_was_said_of_a_lease_before_says_nothing_of_the_next(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    *_, vm = fleet = await all_lent(database, service, 3)
    await fall_ill(fleet)
    await service.execute("SELECT end_lease(lease_id) FROM vms WHERE hostname = $1", vm.hostname)
    await vm.clean()
    assert (await vm.hello(None))["status"] == "in-use"  # somebody waited
    assert "its own checks pass" not in await said(owner, f"why_vm('{vm.hostname}')")


async def test_another_pools_machines_count_for_themselves(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 3)
    await fall_ill(fleet)
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    other = await machine(database, "gpu-1", pool="gpu")
    await ask(service, "gpu@example.org", pool="gpu")
    assert await other.unhealthy(1, ILL) == "failed"


async def test_what_else_a_lent_machine_finds_takes_it_out_as_ever(
    database: Database, service: asyncpg.Connection
) -> None:
    *_, vm = fleet = await all_lent(database, service, 3)
    await fall_ill(fleet)
    assert await vm.unhealthy(1, "the journal cannot be written") == "failed"


async def test_two_machines_that_report_at_once_do_not_both_take_the_last_place(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first, second, third = await all_lent(database, service, 3)
    await first.unhealthy(1, ILL)

    async with second.connection.transaction():
        assert await second.unhealthy(1, ILL) == "failed"
        assert await third.unhealthy(1, ILL) == "in-use"  # it waits for nobody
        assert await noted(owner, "vm.unwell") == []

    assert await third.unhealthy(1, ILL) == "in-use"
    assert await noted(owner, "vm.unwell") == [third.hostname]


async def test_whose_place_was_not_taken_after_all_goes_when_it_says_so_again(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first, second, third = await all_lent(database, service, 3)
    await first.unhealthy(1, ILL)
    given_up = second.connection.transaction()
    await given_up.start()
    await second.unhealthy(1, ILL)
    assert await third.unhealthy(1, ILL) == "in-use"
    await given_up.rollback()
    assert await third.unhealthy(1, ILL) == "failed"


async def test_it_holds_over_the_hub(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 2)
    vm = await known(database, "vm-3")
    await ask(service, "vm-3@example.org")
    await vm.run()
    await fall_ill(fleet)
    assert await call(service, "unhealthy", epoch=1, reason=ILL) == {"answer": "in-use"}
    assert await call(service, "well", epoch=1) == {"answer": "in-use"}
    assert (await noted(owner, "vm.unwell"), await noted(owner, "vm.well")) == (["vm-3"], ["vm-3"])


async def test_why_says_that_machines_stay_though_their_checks_fail(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    *_, vm = fleet = await all_lent(database, service, 4)
    lease = (await vm.hello(None))["lease_id"]
    questions = ("why_pool('default')", f"why_vm('{vm.hostname}')", f"why_lease('{lease}')")
    before = [await said(owner, question) for question in questions]
    await fall_ill(fleet)
    pool, machines_own, holders = [await said(owner, question) for question in questions]

    told = pool["its lent machines pass their own checks"]
    assert told == (
        f"2 do not, and stay with whoever has them, because so many fail at once; such as vm-3: unhealthy: {ILL}"
    )
    assert machines_own["its own checks pass"].startswith(f"unhealthy: {ILL}; so many fail")
    assert "so it stays yours" in holders["its machine passes its own checks"]
    assert not any("check" in what for those in before for what in those)

    await vm.well(1)
    assert "its own checks pass" not in await said(owner, f"why_vm('{vm.hostname}')")


async def test_reports_of_a_whole_pool_on_many_connections_take_no_more_than_the_limit(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    fleet = await all_lent(database, service, 10)
    for _ in range(5):
        lent = {row["hostname"] for row in await owner.fetch("SELECT hostname FROM vms WHERE status = 'in-use'")}
        await asyncio.gather(*(vm.unhealthy(1, ILL) for vm in fleet if vm.hostname in lent))
    assert await statuses(owner) == {"failed": 2, "in-use": 8}
