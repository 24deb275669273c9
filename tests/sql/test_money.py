"""What a month of a pool may cost: leases are opened and made longer only where the budget has room for all of them."""

from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CYD, ask, ask_together, asked, lent, machine, machines, noticed, refused
from tests.sql.test_moves import renew
from tests.sql.test_passed_over import out_of_time, with_nobody_there
from tests.support.database import Database

SPENDING = "SELECT spent, promised, budget FROM pool_spending"
ALERTS = "SELECT detail ->> 'percent' FROM events WHERE kind = 'alert.budget' ORDER BY id"


@pytest.fixture(autouse=True)
async def money(database: Database, owner: asyncpg.Connection) -> None:
    """Three leases of two hours fit, or two that are made one hour longer each, while time stands in mid-month."""
    await database.stand_at("2027-01-15 12:00+00")
    await owner.execute(
        "UPDATE pools SET lease_seconds = 7200, extend_seconds = 3600, price_per_hour = 5, budget = 30, "
        "currency = 'EUR', time_zone = 'Pacific/Auckland'"
    )


async def spending(owner: asyncpg.Connection) -> tuple[int, int]:
    """What is spent and what is promised, in whole euros."""
    row = await owner.fetchrow(SPENDING)
    assert row is not None
    return round(row["spent"]), round(row["promised"])


async def test_a_lease_that_the_budget_has_no_room_for_is_refused_in_words(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 2)
    for email in (ADA, BOB, CYD):  # the third waits, and counts all the same
        assert (await ask(service, email))["outcome"] == "created"
    assert await spending(owner) == (0, 30)
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await ask(service, "dan@example.org")
    assert refusal.value.sqlstate == "LL013"
    hint = refusal.value.as_dict()["hint"]
    assert hint.startswith("Of 30 EUR for this month 0.00 are spent, and leases that are open now may cost 30.00 more.")


async def test_who_has_a_lease_or_repeats_a_request_is_not_refused(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first = await ask(service, ADA, key="k")
    await owner.execute("UPDATE pools SET budget = 1")
    assert (await ask(service, ADA, key="k"))["lease_id"] == first["lease_id"]
    assert (await ask(service, ADA))["outcome"] == "live"
    with refused("LL007"):
        await ask(service, ADA, key="k", request="another one")
    with refused("LL013"):
        await ask(service, BOB)


async def test_of_those_who_ask_together_as_many_are_let_in_as_there_is_money_for(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    answers = await ask_together(service, *(asked(f"p{n}@example.org") for n in range(5)))
    assert [answer["refused"] for answer in answers] == [None, None, None, "40001", "40001"]
    with refused("LL013"):
        await ask(service, "p3@example.org")
    answers = await ask_together(service, *(asked(f"p{n}@example.org") for n in range(5)))
    assert [answer["refused"] or answer["outcome"] for answer in answers] == ["live"] * 3 + ["LL013"] * 2


async def test_hours_count_from_the_first_machine_to_the_end_and_from_the_first_of_the_month(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    await owner.execute("UPDATE leases SET assigned_at = assigned_at - interval '60 days' WHERE id = $1", lease)
    began = "SELECT extract(epoch FROM clock() - month_of(p))::integer / 3600 FROM pools p"
    hours = await owner.fetchval(began)
    assert (await spending(owner))[0] in range(5 * hours, 5 * hours + 6)
    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()
    spent, promised = await spending(owner)
    assert spent in range(5 * hours, 5 * hours + 6)
    assert promised == 0


async def test_a_lease_costs_nothing_while_it_has_no_machine_and_what_it_cost_is_not_forgotten(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await with_nobody_there(database, owner, service, 3600)
    assert await spending(owner) == (5, 15)
    await database.age(lease, 7200)
    assert (await spending(owner))[0] == 5
    await service.execute("SELECT end_lease(id) FROM lease_views WHERE email = $1", BOB)
    await vm.clean()
    assert await renew(service, lease) == "assigned"
    assert await spending(owner) == (5, 5)
    await service.execute("SELECT end_lease($1)", lease)
    assert await spending(owner) == (5, 0)


async def test_what_is_given_back_early_costs_no_more(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await lent(database, service)
    assert await spending(owner) == (0, 10)
    await service.execute("SELECT end_lease($1)", lease)
    await vm.clean()
    assert await spending(owner) == (0, 0)


async def test_a_lease_is_made_longer_only_where_there_is_money_for_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE pools SET budget = 14")
    with refused("LL013"):
        await service.execute("SELECT extend_lease($1)", lease)
    await owner.execute("UPDATE pools SET budget = 15")
    assert await service.fetchval("SELECT extend_lease($1)", lease)


async def test_who_waits_already_waits_on_when_the_budget_is_lowered_and_is_told_why(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    waits = (await ask(service, ADA))["lease_id"]
    await owner.execute("UPDATE pools SET budget = 9")
    await machine(database)
    await service.execute("SELECT sweep_forecasts()")
    assert await owner.fetchval("SELECT status FROM leases WHERE id = $1", waits) == "queued"
    assert await owner.fetchval("SELECT eta_seconds FROM lease_views WHERE id = $1", waits) is None
    why = {row["what"]: row for row in await service.fetch("SELECT * FROM why_lease($1)", waits)}
    assert not why["the budget of its pool allows it"]["holds"]
    assert "Of 9 EUR" in why["the budget of its pool allows it"]["detail"]
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    await owner.execute("UPDATE pools SET budget = 10")
    assert await service.fetchval("SELECT sweep_queue()") == 1


async def test_whoever_lost_a_machine_goes_on_with_what_was_promised(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE pools SET budget = 1")
    await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")
    assert await owner.fetchval("SELECT hostname FROM leases WHERE id = $1", lease) == "vm-2"


async def told(service: asyncpg.Connection, lease: UUID) -> tuple[bool, bool]:
    """Whether `why` says that the budget lets this lease have a machine, and whether a time is told."""
    why = {row["what"]: row for row in await service.fetch("SELECT * FROM why_lease($1)", lease)}
    has_time = await service.fetchval("SELECT eta_seconds IS NOT NULL FROM lease_views WHERE id = $1", lease)
    assert has_time == ("in about" in why["next"]["detail"])
    assert has_time != ("the budget allows it" in why["next"]["detail"])
    return why["the budget of its pool allows it"]["holds"], has_time


async def test_while_a_lease_that_moved_waits_those_behind_it_are_told_what_the_budget_does_of_each(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, moved = await lent(database, service)
    waiting = [moved, *[(await ask(service, email))["lease_id"] for email in (BOB, CYD)]]
    await owner.execute("UPDATE vms SET status = 'failed'")
    coming = [await machine(database, name, "booting") for name in ("vm-2", "vm-3")]
    for budget, served in ((14, [moved]), (24, waiting[:2]), (34, waiting)):
        await owner.execute("UPDATE pools SET budget = $1", budget)
        await service.execute("SELECT sweep_forecasts()")
        assert [await told(service, lease) for lease in waiting] == [(lease in served,) * 2 for lease in waiting]
        assert await owner.fetchval("SELECT waiting_for_machines('default')") == len(served)
        whoever_asks = await owner.fetchval("SELECT eta_seconds FROM pool_status()")
        assert (whoever_asks is not None) == (served == waiting)
    await owner.execute("UPDATE pools SET budget = 14")
    for vm in coming:
        await vm.hello()
    await service.execute("SELECT sweep_queue()")
    assert [row["id"] for row in await owner.fetch("SELECT id FROM leases WHERE status = 'assigned'")] == [moved]


async def test_a_lease_that_moved_and_is_passed_over_does_not_make_the_budget_seem_unspent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET budget = 40")
    await lent(database, service)
    await machine(database, "vm-2")
    await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")
    await ask(service, BOB)
    await out_of_time(owner, service)
    await ask(service, CYD)
    await owner.execute("UPDATE pools SET budget = 1")
    assert await owner.fetchval("SELECT max(moves) FROM leases WHERE passed_over") > 0
    await machine(database, "vm-3")
    await owner.execute("UPDATE vms SET updated_at = updated_at - interval '1 minute'")
    assert (
        await owner.fetchval("SELECT in_everybodys_way('default')") == "no machine is lent before the budget allows it"
    )
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_what_is_lent_by_hand_counts_and_what_goes_beyond_the_budget_is_said(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    await owner.execute("UPDATE pools SET budget = 5")
    said = noticed(owner)
    await owner.execute("UPDATE vms SET status = 'in-use', email = 'eve@example.org', crd_command = 'start-host'")
    assert any(words.startswith("Pool default goes beyond its budget. Of 5 EUR") for words in said)
    assert await spending(owner) == (0, 10)


async def test_a_budget_is_warned_of_once_at_four_fifths_and_once_when_no_lease_fits_any_more(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET budget = 50")
    for email, told in ((ADA, 0), (BOB, 0), (CYD, 0), ("dan@example.org", 1), ("eve@example.org", 1)):
        await ask(service, email)
        assert await service.fetchval("SELECT sweep_budgets()") == told
    assert await service.fetchval("SELECT sweep_budgets()") == 0
    assert [row[0] for row in await owner.fetch(ALERTS)] == ["80", "100"]
    await owner.execute("UPDATE pools SET budget_told = '2001-01 100'")
    assert await service.fetchval("SELECT sweep_budgets()") == 1


async def test_a_pool_with_a_price_and_no_budget_or_a_budget_and_no_price_refuses_nobody(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET budget = NULL")
    assert (await ask(service, ADA))["outcome"] == "created"
    await owner.execute("UPDATE pools SET budget = 0, price_per_hour = NULL")
    assert (await ask(service, BOB))["outcome"] == "created"
    assert await owner.fetchval("SELECT count(*) FROM pool_spending") == 0


async def test_a_budget_without_a_price_keeps_nobody_waiting_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    await owner.execute("UPDATE pools SET price_per_hour = NULL")
    await service.execute("SET lock_timeout = '1s'")
    async with owner.transaction():
        await owner.execute("SELECT FROM pools FOR NO KEY UPDATE")
        assert await service.fetchval("SELECT extend_lease($1)", lease)
