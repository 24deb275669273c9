"""Which instance may enrol under a name of the fleet, what is written down of others, and how long boots took."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from client.scram import verifier
from tests.sql.steps import refused, row_of, sha256
from tests.support.database import Database

VERIFIER = verifier("password of the machine")
OTHER_VERIFIER = verifier("another password")
OURS = "i-0123456789abcdef0"


async def wanted(owner: asyncpg.Connection, token: str = "token", instance: str | None = OURS) -> None:
    """vm-1 is of the fleet, made as that instance and invited."""
    made = "clock()" if instance else "NULL"
    await owner.execute(
        f"INSERT INTO fleet_vms (hostname, instance_id, made_at) VALUES ('vm-1', $1, {made}) ON CONFLICT DO NOTHING",
        instance,
    )
    await owner.execute("SELECT invite_vm('vm-1', 'default', $1, 3600)", sha256(token))


@contextmanager
def saying(words: str) -> Iterator[None]:
    with pytest.raises(asyncpg.PostgresError, match=words) as refusal:
        yield
    assert refusal.value.sqlstate == "LL006"


async def enrol(
    service: asyncpg.Connection, instance: str, *, age: float = 60, token: str = "token", scram: str = VERIFIER
) -> str:
    return str(
        await service.fetchval(
            "SELECT role FROM enrol_instance($1, $2, $3, clock() - make_interval(secs => $4))",
            sha256(token),
            scram,
            instance,
            age,
        )
    )


async def test_the_instance_that_was_made_enrols_and_is_written_down(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    role = await enrol(service, OURS)

    assert await enrol(service, OURS) == role
    assert (await row_of(owner))["status"] == "booting"
    assert await owner.fetchval("SELECT instance_id FROM join_tokens") == OURS


async def test_a_bare_token_is_not_enough_for_a_name_of_the_fleet(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    with saying("does not show which instance it is"):
        await service.execute("SELECT * FROM enrol_instance($1, $2, NULL, NULL)", sha256("token"), VERIFIER)

    assert await owner.fetchval("SELECT count(*) FROM vms") == 0


async def test_another_instance_is_not_let_in(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await wanted(owner)
    with saying("i-0fedcba9876543210 is not vm-1"):
        await enrol(service, "i-0fedcba9876543210")


async def test_no_instance_is_let_in_before_terraform_has_made_it(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner, instance=None)
    with saying("is not vm-1"):
        await enrol(service, OURS)


async def test_a_token_is_open_until_somebody_came_with_it_or_it_is_too_old(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    async def is_open(token: str) -> bool:
        return bool(await service.fetchval("SELECT is_open_token($1)", sha256(token)))

    await wanted(owner)
    await wanted(owner, "another")
    await owner.execute("UPDATE join_tokens SET expires_at = clock() WHERE token_sha256 = $1", sha256("another"))
    assert [await is_open(token) for token in ("token", "another", "nobody's")] == [True, False, False]
    with saying("unknown, used or expired"):
        await service.execute("SELECT * FROM enrol_instance($1, $2, NULL, NULL)", sha256("another"), VERIFIER)
    await enrol(service, OURS)

    assert not await is_open("token")


async def test_an_identity_of_yesterday_is_not_fresh(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await wanted(owner)
    with saying("more than an hour old"):
        await enrol(service, OURS, age=86_400)


async def test_a_live_instance_does_not_enrol_a_second_time(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    role = await enrol(service, OURS)
    await wanted(owner, "another")
    with saying("it cannot enrol a second time"):
        await enrol(service, OURS, token="another", scram=OTHER_VERIFIER)

    assert (await row_of(owner))["role"] == role


async def test_an_instance_whose_machine_failed_enrols_again(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    await enrol(service, OURS)
    await owner.execute("SELECT revoke_vm('vm-1')")
    await wanted(owner, "another")
    await enrol(service, OURS, token="another", scram=OTHER_VERIFIER)

    assert (await row_of(owner))["status"] == "booting"


async def test_a_machine_that_is_not_of_the_fleet_needs_no_identity(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("SELECT invite_vm('vm-1', 'default', $1, 3600)", sha256("token"))
    await service.execute("SELECT * FROM enrol_instance($1, $2, NULL, NULL)", sha256("token"), VERIFIER)

    assert (await row_of(owner))["status"] == "booting"


async def test_where_no_identity_is_asked_for_the_token_alone_is_enough(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    await service.execute("SELECT * FROM enrol_vm($1, $2)", sha256("token"), VERIFIER)

    assert (await row_of(owner))["status"] == "booting"


async def test_who_had_a_token_and_was_not_let_in_is_written_down_once_a_minute(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    for token in ("token", "token", "nobody's"):
        await service.execute("SELECT note_refused_join($1, 'i-0fedcba9876543210', 'why')", sha256(token))

    [event] = await owner.fetch("SELECT hostname, detail FROM events WHERE kind = 'alert.join'")
    assert event["hostname"] == "vm-1"
    assert json.loads(event["detail"]) == {"instance": "i-0fedcba9876543210", "why": "why"}


@pytest.mark.parametrize(
    ("aged", "absent"),
    [
        ("created_at = clock() - interval '19 minutes'", False),
        ("created_at = clock() - interval '21 minutes'", True),
        ("expires_at = clock() - interval '1 second'", True),
    ],
)
async def test_a_machine_of_the_fleet_that_does_not_come_is_reported_once(
    owner: asyncpg.Connection, service: asyncpg.Connection, aged: str, absent: bool
) -> None:
    await wanted(owner)
    await owner.execute(f"UPDATE join_tokens SET {aged}")
    rows = await service.fetch("SELECT * FROM absent_machines()")

    assert [(row["hostname"], row["instance_id"]) for row in rows] == [("vm-1", OURS)] * absent
    for row in rows:
        assert await service.fetchval("SELECT note_absence($1, 'cloud-init')", row["token_sha256"])
        assert not await service.fetchval("SELECT note_absence($1, 'cloud-init')", row["token_sha256"])
        assert json.loads(await owner.fetchval("SELECT detail FROM events WHERE kind = 'alert.absent'")) == {
            "phase": "cloud-init"
        }
    assert await service.fetch("SELECT * FROM absent_machines()") == []


async def test_a_machine_that_enrolled_or_was_invited_anew_is_not_absent(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await wanted(owner)
    await wanted(owner, "another")
    await owner.execute(
        "UPDATE join_tokens SET created_at = created_at - interval '1 hour' WHERE token_sha256 = $1", sha256("token")
    )
    await enrol(service, OURS, token="another")
    await owner.execute("UPDATE join_tokens SET expires_at = clock() - interval '1 minute'")

    assert await service.fetch("SELECT * FROM absent_machines()") == []


PHASES = [["instance", 21.5], ["cloud-init", 40], ["ready-check", 0.5]]


async def booted(machine: asyncpg.Connection, phases: Any, boot: UUID | None = None) -> None:
    await machine.execute("SELECT client_api.booted($1, $2)", boot or uuid4(), json.dumps(phases))


async def test_a_boot_is_kept_once_with_its_phases(database: Database, owner: asyncpg.Connection) -> None:
    vm = await database.vm("vm-1")
    machine, boot = await vm.connect(), uuid4()
    await booted(machine, PHASES, boot)
    await booted(machine, [["ready-check", 3]], boot)

    [row] = await owner.fetch("SELECT * FROM boots")
    assert (row["vm_id"], row["boot_id"], row["pool"], float(row["seconds"])) == (vm.id, boot, "default", 62.0)
    assert json.loads(row["phases"]) == PHASES


@pytest.mark.parametrize(
    "phases",
    [
        [],
        {},
        None,
        "x",
        [["instance"]],
        ["instance"],
        [["instance", "1"]],
        [["instance", -1]],
        [["instance", 86_401]],
        [["In Stance", 1]],
        [["i" * 41, 1]],
        [["instance", 1, 1]],
        [["instance", 1]] * 11,
        [["instance", 1e-300]] * 10,
    ],
    ids=str,
)
async def test_a_boot_that_cannot_be_is_refused(database: Database, owner: asyncpg.Connection, phases: Any) -> None:
    machine = await (await database.vm("vm-1")).connect()
    with refused("LL003"):
        await booted(machine, phases)

    assert await owner.fetchval("SELECT count(*) FROM boots") == 0


async def test_a_machine_fills_no_table_with_boots(database: Database, owner: asyncpg.Connection) -> None:
    machine = await (await database.vm("vm-1")).connect()
    other = await (await database.vm("vm-2")).connect()
    await booted(other, PHASES)
    for _ in range(22):
        await booted(machine, PHASES)

    assert await owner.fetchval("SELECT count(*) FROM boots") == 21
    await owner.execute("DELETE FROM vms WHERE hostname = 'vm-1'")
    assert await owner.fetchval("SELECT count(*) FROM boots") == 1


async def test_how_long_boots_take_is_told_for_each_pool(database: Database, owner: asyncpg.Connection) -> None:
    machine = await (await database.vm("vm-1")).connect()
    for seconds in range(1, 12):
        await booted(machine, [["instance", seconds]])

    row = await owner.fetchrow("SELECT * FROM boot_times")
    assert row is not None
    assert tuple(map(float, tuple(row)[1:])) == (11.0, 6.0, 10.0)
