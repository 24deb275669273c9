"""Groups compete for machines: each has its turn, and whoever is of one that has what it may have waits."""

import json
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.sql.steps import (
    ADA,
    BOB,
    CYD,
    Machine,
    ask,
    ask_together,
    asked,
    lease_of,
    machine,
    machines,
    noticed,
    row_of,
)
from tests.support.database import Database

WAITS = "SELECT position, held_back, eta_seconds FROM lease_views WHERE id = $1"
LINE = "SELECT email FROM waiting WHERE pool = 'default' ORDER BY position"


@pytest.fixture(autouse=True)
async def groups(owner: asyncpg.Connection) -> None:
    """Biology and chemistry, ten members each: b0@… and c0@…."""
    await owner.execute("INSERT INTO groups VALUES ('biology'), ('chemistry')")
    await owner.execute(
        "INSERT INTO members SELECT g || n || '@example.org', CASE g WHEN 'b' THEN 'biology' ELSE 'chemistry' END "
        "FROM unnest(ARRAY['b', 'c']) AS g, generate_series(0, 9) AS n"
    )


def person(name: str) -> str:
    return f"{name}@example.org"


async def ask_all(service: asyncpg.Connection, names: str) -> None:
    for name in names.split():
        await ask(service, person(name))


async def waits(owner: asyncpg.Connection, lease: UUID) -> tuple[int, str | None, int | None]:
    """What somebody who waits is shown."""
    [row] = await owner.fetch(WAITS, lease)
    return tuple(row)


async def line(owner: asyncpg.Connection) -> str:
    """Who waits, in the order in which they are served."""
    return " ".join(row["email"].split("@")[0] for row in await owner.fetch(LINE))


async def holders(owner: asyncpg.Connection) -> str:
    """Who has a machine, by name."""
    rows = await owner.fetch("SELECT email FROM leases WHERE live AND vm_id IS NOT NULL ORDER BY email")
    return " ".join(row["email"].split("@")[0] for row in rows)


async def give_back(service: asyncpg.Connection, vm: Machine) -> None:
    """Whoever has the machine gives it back, and it is cleaned for whoever is next."""
    await service.execute("SELECT end_lease(l.id) FROM lease_views l WHERE vm_id = $1 AND status <> 'ended'", vm.vm.id)
    await vm.clean()


async def test_who_is_next_is_of_the_group_with_the_fewest_machines_and_then_came_first(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 2)
    await ask_all(service, "b0 b1 b2 b3 c0 c1 x0 b4 x1")
    assert await holders(owner) == "b0 b1"
    assert await line(owner) == "c0 x0 c1 x1 b2 b3 b4"


async def test_inside_a_group_and_where_there_is_one_first_come_is_first_served(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ask_all(service, "b3 b1 b2 b0")
    assert await line(owner) == "b3 b1 b2 b0"
    await owner.execute("UPDATE leases SET group_name = NULL")
    assert await line(owner) == "b3 b1 b2 b0"


async def test_where_no_group_waits_nothing_is_done_for_groups(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ask(service, ADA)
    plan = "EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM queue_places"

    alone = await owner.fetchval(plan)
    await ask(service, person("b0"))
    shared = await owner.fetchval(plan)

    assert [loops(json.loads(each)[0]["Plan"], "fair_queue") for each in (alone, shared)] == [0, 1]


def loops(node: dict[str, Any], function: str) -> int:
    """How often a plan, as EXPLAIN tells it, calls the function."""
    own = int(node["Actual Loops"]) if node.get("Function Name") == function else 0
    return own + sum(loops(child, function) for child in node.get("Plans", ()))


async def test_machines_that_come_free_go_in_turn(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    own = await machines(database, 2)
    await ask_all(service, "b0 b1 b2 b3 c0 c1")
    for vm in own:
        await give_back(service, vm)
    assert await holders(owner) == "b2 c0"
    assert await line(owner) == "b3 c1"


async def test_whoever_lost_a_machine_is_before_all_groups(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 3)
    await ask_all(service, "b0 b1 b2 b3 c0")
    await owner.execute("UPDATE vms SET status = 'failed' WHERE email = 'b1@example.org'")
    assert await line(owner) == "b1 c0 b3"


async def test_requests_that_come_together_share_what_is_free(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 4)
    await ask_together(service, *(asked(person(name)) for name in ("b0", "b1", "b2", "b3", "c0", "c1")))
    assert await holders(owner) == "b0 b1 c0 c1"


async def test_who_is_over_the_quota_waits_and_others_pass_by(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE groups SET max_live = 1 WHERE name = 'biology'")
    own = await machines(database, 3)
    await ask_all(service, "b0 b1 c0")
    assert await holders(owner) == "b0 c0"
    over = await owner.fetchval("SELECT id FROM leases WHERE status = 'queued'")
    assert await waits(owner, over) == (1, "biology has 1 of its 1 machine", None)
    why = {row["what"]: row for row in await service.fetch("SELECT * FROM why_lease($1)", over)}
    assert not why["its group may have another machine"]["holds"]
    assert "when one of its group's is given back" in why["next"]["detail"]
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    await service.execute("SELECT end_lease(id) FROM lease_views WHERE email = 'b0@example.org'")
    await service.execute("SELECT sweep_queue()")
    assert await holders(owner) == "b1 c0"
    assert len(own) == 3


async def test_a_share_limits_one_pool_and_a_group_all_of_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    await owner.execute("INSERT INTO shares VALUES ('gpu', 'biology', 1)")
    await owner.execute("UPDATE groups SET max_live = 2 WHERE name = 'biology'")
    for n in range(3):
        await machine(database, f"gpu-{n}", pool="gpu")
        await machine(database, f"cpu-{n}")
    await ask(service, person("b0"), pool="gpu")
    over = await ask(service, person("b1"), pool="gpu")
    both = "biology has 1 of its 2 machines and 1 of its 1 machine in pool gpu"
    assert (await waits(owner, over["lease_id"]))[1] == both
    await ask(service, person("b2"))
    await ask(service, person("b3"))
    assert await holders(owner) == "b0 b2"


async def test_the_group_that_counts_is_the_one_at_the_request(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    lease = (await ask(service, "B0@Example.org"))["lease_id"]
    await owner.execute("DELETE FROM members")
    assert (await lease_of(owner, lease))["group_name"] == "biology"


async def test_a_group_that_is_renamed_keeps_what_it_has_and_one_that_goes_leaves_nobody_waiting(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE groups SET max_live = 0")
    await machine(database)
    lease = (await ask(service, person("b0")))["lease_id"]
    await owner.execute("UPDATE groups SET name = 'life' WHERE name = 'biology'")
    assert (await lease_of(owner, lease))["group_name"] == "life"
    await owner.execute("TRUNCATE groups CASCADE")
    await service.execute("SELECT sweep_queue()")
    assert await holders(owner) == "b0"


async def test_a_machine_lent_by_hand_counts_and_what_goes_beyond_a_quota_is_said(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE groups SET max_live = 1 WHERE name = 'biology'")
    await machines(database, 2)
    await ask(service, person("b0"))
    said = noticed(owner)
    await owner.execute(
        "UPDATE vms SET status = 'in-use', email = 'b1@example.org', crd_command = 'start-host' "
        "WHERE status = 'available'"
    )
    assert "Group biology has 1 machine more than it may have." in said
    assert await owner.fetchval("SELECT room_of('default', 'biology')") == -1
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []


async def test_a_limit_that_was_lowered_takes_nobody_s_machine_and_verify_knows_it_from_one_that_was_broken(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machines(database, 2)
    await ask_all(service, "b0 b1")
    await owner.execute("UPDATE groups SET max_live = 1 WHERE name = 'biology'")
    assert await owner.fetch("SELECT * FROM broken_invariants()") == []
    await owner.execute("UPDATE groups SET since = since - interval '1 day'")
    [broken] = await owner.fetch("SELECT * FROM broken_invariants()")
    assert broken["rule"] == "I14"
    await owner.execute("UPDATE groups SET max_live = NULL")


async def test_whoever_is_of_no_group_and_asks_where_nobody_waits_is_served_as_ever(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await machine(database)
    answer = await ask(service, ADA)
    assert answer["outcome"] == "created"
    assert (await lease_of(owner, answer["lease_id"]))["group_name"] is None
    assert (await row_of(owner))["status"] == "in-use"
    assert [(await ask(service, who))["outcome"] for who in (BOB, CYD)] == ["created", "created"]
    assert await line(owner) == "bob cyd"
