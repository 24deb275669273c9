"""Requests that come together: each is answered as if it had come alone, in the order in which they came."""

import asyncio

import asyncpg
import pytest

from tests.sql.listening import ears
from tests.sql.steps import (
    ADA,
    BOB,
    CODE,
    CYD,
    SALT,
    ask,
    ask_together,
    asked,
    connections,
    lease_of,
    row_of,
    waits_for_a_lock,
)
from tests.support.database import Database, free_machines

MANY = 200


async def holders(owner: asyncpg.Connection) -> dict[str, str | None]:
    """Who has which machine, in the order of the queue."""
    rows = await owner.fetch("SELECT email, hostname FROM leases WHERE live ORDER BY place")
    return {row["email"]: row["hostname"] for row in rows}


async def test_all_get_machines_in_the_order_they_came(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for hostname in ("vm-1", "vm-2"):
        await database.vm(hostname)

    answers = await ask_together(service, asked(CYD), asked(ADA), asked(BOB))

    assert [(answer["outcome"], answer["token_salt"], answer["refused"]) for answer in answers] == [
        ("created", SALT, None)
    ] * 3
    assert await holders(owner) == {CYD: "vm-1", ADA: "vm-2", BOB: None}
    leases = [await lease_of(owner, answer["lease_id"]) for answer in answers]
    assert [lease["email"] for lease in leases] == [CYD, ADA, BOB]
    assert [(each["vm_id"], each["epoch"]) for each in answers] == [(each["vm_id"], each["epoch"]) for each in leases]
    assert [answer["epoch"] for answer in answers] == [1, 1, None]


async def test_they_do_not_overtake_the_queue(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for hostname in ("vm-1", "vm-2"):
        await database.age(await database.vm(hostname), 60)
    await ask(service, ADA)
    await owner.execute("UPDATE vm_heartbeats SET seen_at = clock()")

    await ask_together(service, asked(BOB), asked(CYD))

    assert await holders(owner) == {ADA: "vm-1", BOB: "vm-2", CYD: None}


async def test_machines_and_allocators_hear_of_all_in_one_hint_each(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    for number in range(20):
        await database.vm(f"vm-{number}")
    async with ears(await database.connect("lablink_app")) as heard:
        await ask_together(service, *(asked(f"u{n}@example.org") for n in range(20)))
        await heard.catch_up()

    assert {hint["status"] for hint in heard.hints()} == {"in-use"}
    assert len(heard.hints()) == 20
    assert len(heard.all_payloads) == 2  # machines; leases


async def test_what_is_wrong_with_one_is_nobody_elses(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 60, 60, 60)")
    await ask(service, "lin@example.org")
    await ask(service, "eve@example.org", key="k")

    answers = await ask_together(
        service,
        asked("a@example.org", pool="gpu"),
        asked("b@example.org", argv=["rm"]),
        asked("LIN@example.org"),
        asked("eve@example.org", key="k", request="another request"),
        asked("eve@example.org", key="k"),
        asked(ADA, argv=["echo"]),
    )

    assert [(answer["outcome"], answer["refused"]) for answer in answers] == [
        (None, "LL005"),
        (None, "LL009"),
        ("live", None),
        (None, "LL007"),
        ("repeated", None),
        ("created", None),
    ]
    assert [answer["lease_id"] is None for answer in answers] == [True, True, False, True, False, False]


async def test_of_one_person_who_comes_twice_the_first_request_counts(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    first, second = await ask_together(service, asked(ADA, argv=None), asked(ADA.upper()))

    assert (first["outcome"], second["outcome"]) == ("created", "live")
    assert second["lease_id"] == first["lease_id"]
    assert second["token_salt"] is None
    assert await holders(owner) == {ADA: None}


async def test_one_request_that_comes_twice_is_one_lease(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    answers = await ask_together(
        service, asked(ADA, key="k"), asked(ADA, key="k"), asked(ADA, key="k", request="another request")
    )

    assert [(answer["outcome"], answer["refused"]) for answer in answers] == [
        ("created", None),
        ("repeated", None),
        (None, "LL007"),
    ]
    assert answers[1]["lease_id"] == answers[0]["lease_id"]


async def test_each_pool_serves_its_own(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('gpu', true, '{}', 60, 60, 60)")
    await database.vm("vm-1")
    await database.vm("gpu-1", pool="gpu")

    await ask_together(service, asked(ADA, pool="gpu"), asked(BOB), asked(CYD, pool="gpu"))

    assert await holders(owner) == {ADA: "gpu-1", BOB: "vm-1", CYD: None}


async def test_each_has_their_own_code(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 60, 60, 60)")

    answers = await ask_together(service, asked(BOB, argv=["echo"]), asked(ADA), asked(ADA))

    kept = await owner.fetch("SELECT lease_id, secrets FROM lease_secrets")
    assert [row["lease_id"] for row in kept] == [answers[1]["lease_id"]]
    assert CODE in kept[0]["secrets"]


async def test_two_allocators_calls_at_once_give_every_machine_to_one_person(
    database: Database, owner: asyncpg.Connection
) -> None:
    await free_machines(owner, MANY)
    allocators = await connections(database, 4)
    people = [asked(f"u{n}@example.org") for n in range(MANY)]

    answers = await asyncio.gather(*(ask_together(each, *people[n::4]) for n, each in enumerate(allocators)))

    served = await owner.fetchval("SELECT count(DISTINCT vm_id) FROM leases WHERE status = 'assigned'")
    waiting = await owner.fetchval("SELECT count(*) FROM leases WHERE status = 'queued'")
    assert {answer["outcome"] for each in answers for answer in each} == {"created"}
    assert served == MANY - waiting
    assert min(waiting, await owner.fetchval("SELECT count(*) FROM vms WHERE status = 'available'")) == 0


async def test_the_same_people_at_two_allocators_in_any_order_have_one_lease_each(
    database: Database, owner: asyncpg.Connection
) -> None:
    people = [asked(f"u{n}@example.org") for n in range(MANY)]
    first, second = await connections(database, 2)

    answers = await asyncio.gather(ask_together(first, *people), ask_together(second, *reversed(people)))

    assert sorted(answer["outcome"] for each in answers for answer in each) == ["created"] * MANY + ["live"] * MANY
    assert await owner.fetchval("SELECT count(*) FROM leases") == MANY


async def test_they_wait_for_what_somebody_else_is_changing_only_as_long_as_they_have_patience(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("INSERT INTO leases (email, kind) VALUES ($1, 'job')", ADA)

        with pytest.raises(asyncpg.LockNotAvailableError):
            await ask_together(service, asked(BOB), asked(ADA), patience="1ms")

        patient = asyncio.create_task(ask_together(service, asked(BOB), asked(ADA)))
        await waits_for_a_lock(owner, service)
    assert [answer["outcome"] for answer in await patient] == ["created", "live"]


async def test_a_lease_that_ends_while_its_person_asks_again_leaves_nobody_else_without_an_answer(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    held = (await ask(service, ADA))["lease_id"]
    admin = await database.connect("lablink")
    async with admin.transaction():
        await admin.execute("SELECT end_lease($1)", held)
        asking = asyncio.create_task(ask_together(service, asked(ADA)))
        await waits_for_a_lock(owner, service)

    assert [answer["outcome"] for answer in await asking] == ["created"]
    assert (await row_of(owner))["status"] == "cleaning"
