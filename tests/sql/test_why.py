"""What is said of a lease, a machine or a pool is what the claim itself would do."""

import re

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, CODE, PIN, ask, claimed, lease_of, lent, machine
from tests.support.database import Database

Facts = dict[str, tuple[bool | None, str | None]]


async def why(owner: asyncpg.Connection, kind: str, name: object) -> Facts:
    rows = await owner.fetch(f"SELECT * FROM why_{kind}($1)", name)
    facts = {row["what"]: (row["holds"], row["detail"]) for row in rows}
    assert facts["next"][0] is None and facts["next"][1]
    assert not any(secret in str(facts) for secret in (CODE, PIN, ADA, BOB))
    return facts


STATES = {
    "free": "SELECT",
    "draining": "UPDATE vms SET draining = true",
    "failed": "UPDATE vms SET status = 'failed'",
    "held": "UPDATE vms SET status = 'in-use'",
    "cleaning": "UPDATE vms SET status = 'cleaning'",
    "silent": "UPDATE vm_heartbeats SET seen_at = clock() - interval '1 hour'",
}


@pytest.mark.parametrize("state", STATES)
async def test_a_machine_is_said_to_be_free_exactly_when_it_is_lent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, state: str
) -> None:
    await machine(database)
    await owner.execute(STATES[state])
    facts = await why(owner, "vm", "vm-1")
    pool = await why(owner, "pool", "default")
    said = all(holds for holds, _ in facts.values() if holds is not None)
    lease = (await ask(service))["lease_id"]
    got = (await lease_of(owner, lease))["status"] == "assigned"
    assert said == pool["a machine is free"][0] == got == (state == "free")


async def test_whoever_waits_is_told_what_for(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    await machine(database, "vm-2", "booting")
    first, second = (await ask(service, BOB))["lease_id"], (await ask(service, "cyd@example.org"))["lease_id"]
    await service.execute("SELECT sweep_forecasts()")
    facts, later = await why(owner, "lease", first), await why(owner, "lease", second)
    assert facts["a machine of its pool is free"] == (False, "1 booting, 1 lent")
    assert facts["nobody is before it"][0]
    assert later["nobody is before it"] == (False, "1 person before it")
    assert "in about" in str(facts["next"][1]) and "without one it fails in 24 h" in str(facts["next"][1])


@pytest.mark.parametrize(
    ("state", "way"),
    [
        ("paused = true", "no machine is lent before the pool goes on"),
        ("rests_until = clock() + interval '1 minute'", "no machine is lent to those who wait"),
        ("price_per_hour = 1, budget = 0", "no machine is lent before the budget allows it"),
    ],
)
async def test_what_keeps_everybody_waiting_beside_free_machines_is_told_and_no_time(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, state: str, way: str
) -> None:
    await lent(database, service)
    waits = (await ask(service, BOB))["lease_id"]
    await service.execute("SELECT sweep_forecasts()")
    await owner.execute(f"UPDATE pools SET {state}")
    await machine(database, "vm-2")
    for facts in await why(owner, "pool", "default"), await why(owner, "lease", waits):
        [free] = [said for what, said in facts.items() if what.endswith("is free")]
        assert free == (True, "1 free, 1 lent")
        assert way in str(facts["next"][1]) and "in about" not in str(facts["next"][1])
    await service.execute("SELECT sweep_queue()")
    assert (await lease_of(owner, waits))["status"] == "queued"


async def test_the_only_one_who_waits_is_the_first_and_not_the_last(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await lent(database, service)
    for waiting, email in enumerate((BOB, "cyd@example.org"), start=1):
        await ask(service, email)
        said = str((await why(owner, "pool", "default"))["next"][1])
        assert ("; the last" in said) == (waiting > 1)


async def test_each_step_of_a_lease_says_what_is_missing(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm, lease = await claimed(database, service)
    assert (await why(owner, "lease", lease))["it works"] == (False, "the command has not begun")
    await vm.report(lease, 1, "failed", failure="code-used")
    asked = await why(owner, "lease", lease)
    assert asked["its line is here"] == (False, "its holder is asked for a fresh one: code-used")
    assert "goes to whoever is next, in 5 min" in str(asked["next"][1])
    await service.execute("SELECT end_lease($1)", lease)
    assert (await why(owner, "lease", lease))["it is not over"][0] is False


async def test_an_active_lease_says_how_much_longer_it_may_be(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE pools SET extend_seconds = 3600")
    _, lease = await lent(database, service)
    assert "it ends in 8 h; its holder may have it 60 min longer" in str((await why(owner, "lease", lease))["next"][1])
    await ask(service, BOB)
    assert "longer" not in str((await why(owner, "lease", lease))["next"][1])


async def test_a_pool_says_who_may_ask_and_what_there_is_money_for(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO groups VALUES ('biology')")
    await owner.execute("INSERT INTO shares (pool, group_name) VALUES ('default', 'biology')")
    await owner.execute("UPDATE pools SET access = 'members', price_per_hour = 1, budget = 7")
    facts = await why(owner, "pool", "default")
    assert facts["everybody may ask"] == (False, "who is of a group that has a share in it may: biology")
    assert not facts["its budget allows another lease"][0] and "Of 7 USD" in str(
        facts["its budget allows another lease"]
    )
    await owner.execute("UPDATE pools SET access = 'open', budget = 8")
    facts = await why(owner, "pool", "default")
    assert facts["its budget allows another lease"][0] and "everybody may ask" not in facts


@pytest.mark.parametrize(("restarts", "then"), [(True, "moves to another"), (False, "is over")])
async def test_whoever_has_a_machine_that_is_silent_is_told_what_comes_of_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, restarts: bool, then: str
) -> None:
    vm, lease = await claimed(database, service, ["echo"])
    await owner.execute("UPDATE pools SET restart_on_move = $1", restarts)
    await vm.report(lease, 1, "started")
    assert (await why(owner, "lease", lease))["its machine was heard lately"] == (True, None)
    await database.age(vm.vm, 30)
    holds, said = (await why(owner, "lease", lease))["its machine was heard lately"]
    told = rf"not for \d+ s; in \d+ s at the earliest it counts as lost, and the lease {then}"
    assert holds is False and re.fullmatch(told, str(said))
