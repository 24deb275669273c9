"""What a person may do: ask, come back, wait in a queue."""

import json
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from allocator.standing import OPENED
from tests.sql.steps import ADA, BOB, CODE, CYD, PIN, SALT, ask, lease_of, refused, row_of, token_of
from tests.support.database import Database


async def test_a_request_gets_a_free_machine_at_once(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")

    answer = await ask(service, ADA)

    lease, vm = await lease_of(owner, answer["lease_id"]), await row_of(owner)
    assert (answer["outcome"], answer["token_salt"]) == ("created", SALT)
    assert (lease["status"], lease["hostname"], lease["vm_id"], lease["epoch"]) == ("assigned", "vm-1", vm["id"], 1)
    assert (vm["status"], vm["email"], vm["lease_id"], vm["epoch"]) == ("in-use", ADA, lease["id"], 1)
    assert vm["crd_command"] == lease["crd_command"]
    assert "--code=***" in vm["crd_command"]


async def test_without_a_free_machine_people_wait_in_the_order_they_came(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    ids = [(await ask(service, email))["lease_id"] for email in (ADA, BOB, CYD)]

    rows = await service.fetch("SELECT id, status, position FROM lease_views ORDER BY position")

    assert [(row["id"], row["status"], row["position"]) for row in rows] == [
        (ids[0], "queued", 1),
        (ids[1], "queued", 2),
        (ids[2], "queued", 3),
    ]


async def test_a_machine_that_comes_free_goes_to_who_waits_longest(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await ask(service, ADA)
    await ask(service, BOB)

    await database.vm("vm-1")

    assert (await row_of(owner))["email"] == ADA


async def test_a_newcomer_does_not_overtake_the_queue(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 60)
    await ask(service, ADA)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")

    answer = await ask(service, BOB)

    assert (await row_of(owner))["email"] == ADA
    assert (await lease_of(owner, answer["lease_id"]))["status"] == "queued"


async def test_a_machine_that_was_not_heard_of_lately_is_not_lent(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await database.vm("vm-1")
    await database.age(vm, 26)

    answer = await ask(service)

    assert (await lease_of(owner, answer["lease_id"]))["status"] == "queued"
    assert await service.fetchval("SELECT unassigned_vms_count()") == 0


@pytest.mark.parametrize("again", [ADA, ADA.upper()])
async def test_a_person_with_a_live_lease_is_led_back_to_it(
    owner: asyncpg.Connection, service: asyncpg.Connection, again: str
) -> None:
    first = await ask(service, ADA)

    second = await ask(service, again)

    assert (second["lease_id"], second["outcome"], second["token_salt"]) == (first["lease_id"], "live", None)
    assert await owner.fetchval("SELECT count(*) FROM leases") == 1


async def test_the_same_request_again_is_the_same_lease(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    first = await ask(service, ADA, key="k")

    second = await ask(service, ADA, key="k")

    assert (second["lease_id"], second["outcome"], second["token_salt"]) == (first["lease_id"], "repeated", SALT)


async def test_the_same_request_is_the_same_lease_even_after_it_ended(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first = await ask(service, ADA, key="k")
    await service.execute("SELECT end_lease($1)", first["lease_id"])

    second = await ask(service, ADA, key="k")

    assert (second["lease_id"], second["outcome"]) == (first["lease_id"], "repeated")


async def test_a_key_of_another_request_is_refused(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await ask(service, ADA, key="k")

    with refused("LL007"):
        await ask(service, ADA, key="k", request="another request")


async def test_a_person_may_ask_again_after_their_lease_ended(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first = await ask(service, ADA)
    await service.execute("SELECT end_lease($1)", first["lease_id"])

    second = await ask(service, ADA)

    assert second["outcome"] == "created"
    assert second["lease_id"] != first["lease_id"]


async def test_a_pool_that_is_not_there_is_refused(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    with refused("LL005"):
        await ask(service, pool="gpu")


async def test_a_program_that_the_pool_does_not_run_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 60, 60, 60)")

    answer = await ask(service, ADA, argv=["echo", "hi"])

    assert answer["outcome"] == "created"
    with refused("LL009"):
        await ask(service, BOB, argv=["rm", "-rf"])


async def test_a_desktop_is_refused_where_the_pool_has_none(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', false, ARRAY['echo'], 60, 60, 60)")

    with refused("LL009"):
        await ask(service)


@pytest.mark.parametrize(("kind", "command"), [("job", None), ("job", "{}"), ("job", '{"argv": []}'), ("hold", "{}")])
async def test_a_request_that_names_no_program_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection, kind: str, command: str | None
) -> None:
    with refused("LL009"):
        await service.execute(
            "SELECT request_vm($1, $2, $3, NULL, NULL, $4, $5)", ADA, kind, command, token_of(ADA), SALT
        )


async def test_a_request_gets_a_machine_of_its_own_pool_only(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('gpu', true, '{}', 60, 60, 60)")
    await database.vm("vm-1", pool="default")

    answer = await ask(service, pool="gpu")

    assert (await lease_of(owner, answer["lease_id"]))["status"] == "queued"
    assert await service.fetchval("SELECT unassigned_vms_count()") == 1


async def test_code_and_pin_are_kept_apart_and_go_with_the_lease(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    answer = await ask(service)
    kept = await owner.fetchval("SELECT secrets FROM lease_secrets WHERE lease_id = $1", answer["lease_id"])

    await service.execute("SELECT end_lease($1)", answer["lease_id"])

    assert CODE in kept
    assert PIN in kept
    assert await owner.fetchval("SELECT count(*) FROM lease_secrets") == 0


async def test_a_summary_that_was_not_redacted_is_redacted_here(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute(
        "SELECT request_vm($1, 'desktop', '{}', NULL, $2, $3, $4)",
        ADA,
        f"start-host --code={CODE} --pin {PIN}",
        token_of(ADA),
        SALT,
    )

    assert await owner.fetchval("SELECT crd_command FROM leases") == "start-host --code=*** --pin ***"


async def test_however_many_leases_are_read_the_queue_is_counted_once(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO leases (email, kind) SELECT 'u' || g || '@example.org', 'job' FROM generate_series(1, 300) g"
    )
    await owner.execute("INSERT INTO vms (hostname, status) SELECT 'h' || g, 'in-use' FROM generate_series(1, 300) g")
    await owner.execute("ANALYZE leases")

    plan = json.loads(await service.fetchval("EXPLAIN (ANALYZE, FORMAT JSON) SELECT * FROM lease_views"))

    assert sum(rows_read(plan[0]["Plan"], "leases")) < 3000


async def test_of_thousands_of_leases_only_those_are_looked_at_that_are_opened(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute(
        "INSERT INTO leases (email, kind, token_sha256)"
        " SELECT g || '@example.org', 'job', '' FROM generate_series(1, 300) g"
    )
    await owner.execute("UPDATE leases SET status = 'cancelled'")
    await owner.execute("ANALYZE leases")
    last = await owner.fetchval("SELECT id FROM leases ORDER BY place DESC LIMIT 1")

    await service.execute("SET enable_seqscan = off")  # the table is small
    plan = json.loads(await service.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {OPENED}", [last], [b""]))

    assert sum(rows_read(plan[0]["Plan"], "leases")) < 10


def rows_read(node: dict[str, Any], table: str) -> Iterator[float]:
    """How many rows each scan of the table saw, in a plan as EXPLAIN tells it."""
    if node.get("Relation Name") == table:
        yield node["Actual Loops"] * (node["Actual Rows"] + node.get("Rows Removed by Filter", 0))
    for child in node.get("Plans", []):
        yield from rows_read(child, table)
