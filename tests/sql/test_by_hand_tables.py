"""What an admin may do in psql to the tables beside machines and leases, and what follows."""

import asyncpg
import pytest

from tests.sql.steps import ADA, BOB, ask, lease_of, lent, machine, noticed, refused, row_of
from tests.support.database import Database


@pytest.mark.parametrize(
    "statement",
    ["DELETE FROM pools", "UPDATE pools SET name = 'x'", "TRUNCATE pools CASCADE", "TRUNCATE pools, vms CASCADE"],
)
async def test_the_pool_of_those_who_name_none_stays(owner: asyncpg.Connection, statement: str) -> None:
    with refused("LL003"):
        await owner.execute(statement)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO vms (hostname, pool) VALUES ('vm-9', 'gpu')",
        "INSERT INTO leases (email, kind, pool) VALUES ('eve@example.org', 'typed', 'gpu')",
        "UPDATE vms SET pool = 'gpu'",
        "UPDATE vms SET pool = NULL",
    ],
)
async def test_a_machine_or_lease_is_in_a_pool_that_there_is(
    database: Database, owner: asyncpg.Connection, statement: str
) -> None:
    await database.vm("vm-1")

    with refused("LL005"):
        await owner.execute(statement)


async def test_a_pool_that_nothing_is_in_can_go(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")

    assert await owner.execute("DELETE FROM pools WHERE name = 'gpu'") == "DELETE 1"


@pytest.mark.parametrize(
    "change",
    ["role = NULL", "role = 'x'", "role = 'lablink_app'", "hostname = 'vm-9'", "role = NULL, status = 'failed'"],
)
async def test_a_machine_keeps_its_name_and_its_role(
    database: Database, owner: asyncpg.Connection, change: str
) -> None:
    vm = await machine(database)

    with refused("LL003"):
        await owner.execute(f"UPDATE vms SET {change}")

    assert (await vm.hello())["status"] == "available"


@pytest.mark.parametrize("role", ["lablink_app", "postgres", "lablink_vm_0123456789abcdef"])
async def test_a_machine_inserted_by_hand_cannot_have_a_role_that_was_not_made_for_one(
    owner: asyncpg.Connection, role: str
) -> None:
    with refused("LL003"):
        await owner.execute("INSERT INTO vms (hostname, role) VALUES ('vm-1', $1)", role)


async def test_a_heartbeat_goes_with_its_machine(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")
    await owner.execute("INSERT INTO vm_heartbeats VALUES (99, clock())")

    for statement in ("DELETE FROM vm_heartbeats", "TRUNCATE vm_heartbeats"):
        with refused("LL003"):
            await owner.execute(statement)

    assert await owner.execute("DELETE FROM vm_heartbeats WHERE vm_id = 99") == "DELETE 1"


async def test_heartbeats_that_a_dump_put_back_without_their_machines_go(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await owner.execute("INSERT INTO vm_heartbeats VALUES (99, clock())")
    await service.execute("SELECT sweep_roles()")
    assert await owner.fetchval("SELECT count(*) FROM vm_heartbeats") == 0


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO vm_roles VALUES ('lablink_app')",
        "INSERT INTO vm_roles VALUES ('postgres')",
        "UPDATE vm_roles SET role = 'lablink_app'",
        "DELETE FROM vm_roles",
        "TRUNCATE vm_roles",
    ],
)
async def test_the_sweep_drops_roles_of_machines_only_and_all_of_them(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    vm = await machine(database)

    with refused("LL003"):
        await owner.execute(statement)

    await owner.execute("UPDATE vms SET status = 'retired'")
    assert await service.fetchval("SELECT sweep_roles()") == 1
    assert not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", vm.vm.role)


async def test_an_invitation_may_be_prolonged_and_withdrawn_and_nothing_else(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.enrol("vm-1")

    for change in ("hostname = 'vm-2'", "role = NULL", "verifier_sha256 = NULL", "token_sha256 = sha256('x')"):
        with refused("LL003"):
            await owner.execute(f"UPDATE join_tokens SET {change}")
    await owner.execute("UPDATE join_tokens SET expires_at = clock()")

    assert await owner.execute("DELETE FROM join_tokens") == "DELETE 1"


@pytest.mark.parametrize("statement", ["DELETE FROM lease_secrets", "TRUNCATE lease_secrets"])
async def test_whoever_waits_with_a_code_that_is_taken_away_is_asked_for_another(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await database.vm("vm-1")
    assigned, queued = (await ask(service, ADA))["lease_id"], (await ask(service, BOB))["lease_id"]

    await owner.execute(statement)

    for lease in (assigned, queued):
        row = await lease_of(owner, lease)
        assert (row["live"], row["needs_line"], row["trouble"]) == (True, True, "code-expired")
    assert (await row_of(owner))["lease_id"] == assigned


async def test_a_code_is_never_changed(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await ask(service)

    with refused("LL003"):
        await owner.execute("UPDATE lease_secrets SET secrets = '{}'")


@pytest.mark.parametrize("statement", ["UPDATE events SET kind = 'x'", "DELETE FROM events", "TRUNCATE events CASCADE"])
async def test_the_history_is_only_added_to(database: Database, owner: asyncpg.Connection, statement: str) -> None:
    await database.vm("vm-1")

    with refused("LL003"):
        await owner.execute(statement)


@pytest.mark.parametrize("statement", ["DELETE FROM leases", "TRUNCATE leases CASCADE"])
async def test_deleted_leases_stay_in_the_history_and_their_number_is_said(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    for person in (ADA, BOB):
        await service.execute("SELECT end_lease($1)", (await ask(service, person))["lease_id"])
    words = noticed(owner)

    await owner.execute(statement)

    assert (
        await owner.fetchval("SELECT count(*) FROM events WHERE kind = 'lease.deleted' AND lease_id IS NOT NULL") == 2
    )
    assert words[-1] == "deleted: 2 leases; the history keeps what became of them"


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE vms SET status = 'cleaning' WHERE status = 'in-use'", "now cleaning: 1 machine; over: 1 lease"),
        ("UPDATE vms SET status = 'failed'", "now failed: 3 machines; over: 0 leases; moved: 1 lease"),
        (
            "UPDATE vms SET status = 'retired' WHERE status = 'in-use'",
            "now retired: 1 machine; over: 0 leases; moved: 1 lease",
        ),
        ("DELETE FROM vms", "now deleted: 3 machines; over: 0 leases; moved: 1 lease"),
        ("TRUNCATE vms", "now deleted: 3 machines; over: 0 leases; moved: 1 lease"),
    ],
)
async def test_a_statement_says_how_many_machines_it_reached(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str, said: str
) -> None:
    await lent(database, service)
    await database.vm("vm-2")
    await database.vm("vm-3")
    words = noticed(owner)

    await owner.execute(statement)

    assert words == [said]


async def test_a_statement_says_how_many_leases_it_ended(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    for person in (ADA, BOB):
        await ask(service, person)
    words = noticed(owner)

    await owner.execute("UPDATE leases SET status = 'cancelled'")

    assert words == ["over: 2 leases; cleaned now: 1 machine"]


@pytest.mark.parametrize(("machines", "said"), [(1, ["over: 1 lease; cleaned now: 1 machine"]), (0, [])])
async def test_a_statement_that_ends_one_lease_says_so_when_that_frees_a_machine(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, machines: int, said: list[str]
) -> None:
    for number in range(machines):
        await database.vm(f"vm-{number}")
    await ask(service)
    words = noticed(owner)

    await owner.execute("UPDATE leases SET status = 'cancelled'")

    assert words == said


async def test_what_the_service_does_is_said_to_nobody(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    _, lease = await lent(database, service)
    words = noticed(service)

    await service.execute("SELECT end_lease($1)", lease)

    assert words == []


async def hint_of(owner: asyncpg.Connection, statement: str) -> str:
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await owner.execute(statement)
    assert refusal.value.sqlstate == "LL003"
    return str(getattr(refusal.value, "hint", ""))


@pytest.mark.parametrize("statement", ["SET status = 'cancelled'", "SET status = 'claimed'", "SET status = 'failed'"])
async def test_the_hint_at_an_active_lease_can_be_pasted(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    _, lease = await lent(database, service)

    hint = await hint_of(owner, f"UPDATE leases {statement}")
    await owner.execute(hint.removeprefix("End it with: "))

    assert (await lease_of(owner, lease))["status"] == "ended"


@pytest.mark.parametrize("statement", ["UPDATE leases SET status = 'assigned'", "TRUNCATE leases CASCADE"])
async def test_the_hints_at_a_queued_lease_can_be_pasted(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    lease = (await ask(service))["lease_id"]

    hints = (await hint_of(owner, statement)).split("; ")
    await database.vm("vm-1")
    await owner.execute(hints[0].removeprefix("End it with: "))

    assert (await lease_of(owner, lease))["status"] == "cancelled"
    assert hints[1].startswith("give it a machine: UPDATE vms SET status = 'in-use'")


@pytest.mark.parametrize("status", ["'free'", "'Available'", "''", "NULL"])
async def test_a_status_that_there_is_not_is_answered_with_those_there_are(
    owner: asyncpg.Connection, status: str
) -> None:
    hint = await hint_of(owner, f"INSERT INTO vms (hostname, status) VALUES ('test-vm', {status})")

    assert hint == "A machine is one of: available, booting, cleaning, failed, in-use, retired"


async def test_the_hint_at_a_failed_machine_names_the_word_that_admins_use(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'failed'")

    hint = await hint_of(owner, "UPDATE vms SET status = 'in-use'")

    assert hint == "From failed it can become: available (it is cleaned first), cleaning, retired."
