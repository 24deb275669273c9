"""How a machine gets in with a join token, gets in again, and is shut out for good."""

import asyncio

import asyncpg
import pytest

from client.scram import verifier
from tests.sql.steps import ADA, Machine, ask, is_cut_off, lease_of, machine, refused, row_of, sha256
from tests.support.database import Database

VERIFIER = verifier("password of the machine")
OTHER_VERIFIER = verifier("another password")


async def invite(admin: asyncpg.Connection, token: str = "token", hostname: str = "vm-1", seconds: int = 3600) -> None:
    await admin.execute("SELECT invite_vm($1, 'default', $2, $3)", hostname, sha256(token), seconds)


async def enrol(service: asyncpg.Connection, token: str = "token", scram: str | None = VERIFIER) -> asyncpg.Record:
    row = await service.fetchrow("SELECT * FROM enrol_vm($1, $2)", sha256(token), scram)
    assert row is not None
    return row


async def test_a_token_makes_a_booting_machine_and_a_role_of_its_own(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await invite(owner)

    answer = await enrol(service)

    row = await row_of(owner)
    assert (row["status"], row["id"], row["role"]) == ("booting", answer["vm_id"], answer["role"])
    assert answer["hostname"] == "vm-1"
    assert answer["role"].startswith("lablink_vm_")
    assert await owner.fetchval("SELECT pg_has_role($1, 'lablink_client', 'member')", answer["role"])


async def test_the_password_whose_verifier_was_sent_is_the_one_that_logs_in(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await invite(owner)
    role = (await enrol(service))["role"]

    connection = await database.keep(database.server.dsn(database.name, role, "password of the machine"))

    assert await connection.fetchval("SELECT session_user") == role
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(database.server.dsn(database.name, role, "another password"))


async def test_only_the_tokens_digest_is_kept(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await invite(owner)
    await enrol(service)

    row = await owner.fetchrow("SELECT * FROM join_tokens")

    assert row is not None
    assert row["token_sha256"] == sha256("token")
    assert VERIFIER not in str(row)
    assert "token" not in str(await owner.fetch("SELECT detail FROM events"))


async def test_the_same_enrolment_again_is_answered_the_same(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await invite(owner)

    answers = [await enrol(service), await enrol(service)]

    assert answers[0] == answers[1]
    assert await owner.fetchval("SELECT count(*) FROM vm_roles") == 1


async def test_the_same_enrolment_twenty_times_at_once_makes_one_role(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await invite(owner)
    connections = [await database.connect("lablink_app") for _ in range(20)]

    answers = await asyncio.gather(*(enrol(connection) for connection in connections))

    assert len(set(answers)) == 1
    assert await owner.fetchval("SELECT count(*) FROM vm_roles") == 1


async def test_a_token_lets_only_one_machine_in(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await invite(owner)
    await enrol(service)

    with refused("LL006"):
        await enrol(service, scram=OTHER_VERIFIER)


async def test_a_token_nobody_gave_is_refused(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    with refused("LL006"):
        await enrol(service)


async def test_a_token_that_is_too_old_is_refused(owner: asyncpg.Connection, service: asyncpg.Connection) -> None:
    await invite(owner, seconds=-1)

    with refused("LL006"):
        await enrol(service)


@pytest.mark.parametrize(
    "scram",
    [None, "", "password", "md5d41d8cd98f00b204e9800998ecf8427e", VERIFIER + "'; DROP TABLE vms; --", VERIFIER + "\n"],
)
async def test_what_is_no_verifier_is_refused_and_the_token_stays_good(
    owner: asyncpg.Connection, service: asyncpg.Connection, scram: str | None
) -> None:
    await invite(owner)

    with refused("LL006"):
        await enrol(service, scram=scram)

    assert (await enrol(service))["hostname"] == "vm-1"


async def test_an_invitation_to_a_pool_that_is_not_there_is_refused(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    with refused("LL005"):
        await owner.execute("SELECT invite_vm('vm-1', 'gpu', $1)", sha256("token"))


@pytest.mark.parametrize("hostname", ["", "vm 1", "vm-1\n", "<b>vm</b>", "vm/1", "vm-é"])
async def test_a_machines_name_is_letters_digits_dots_hyphens_and_underscores(
    owner: asyncpg.Connection, hostname: str
) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="cannot be the name"):
        await invite(owner, hostname=hostname)
    with pytest.raises(asyncpg.CheckViolationError):
        await owner.execute("INSERT INTO vms (hostname) VALUES ($1)", hostname)


async def test_a_token_that_is_given_instead_of_its_hash_is_refused(owner: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.InvalidParameterValueError, match="SHA-256"):
        await owner.execute("SELECT invite_vm('vm-9', 'default', 'the-token-itself')")


async def test_a_machine_that_enrols_again_is_cleaned_before_it_is_lent_again(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    lease = (await ask(service, ADA))["lease_id"]

    again = Machine(vm := await database.enrol("vm-1"), await vm.connect())
    orders = await again.hello()

    ended = await lease_of(owner, lease)
    assert (ended["status"], ended["trouble"]) == ("queued", "vm-deleted")
    assert (orders["status"], orders["epoch"]) == ("cleaning", 3)
    assert await again.cleaned(3) == "in-use"


async def test_a_machine_that_enrols_again_keeps_its_row(database: Database, owner: asyncpg.Connection) -> None:
    before = await database.vm("vm-1")
    after = await database.enrol("vm-1")

    assert after.id == before.id
    assert after.role != before.role


async def test_the_role_from_before_is_cut_off_and_dropped(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    before = await machine(database)
    await database.enrol("vm-1")
    with refused("LL002"):
        await before.hello()

    assert await service.fetchval("SELECT sweep_roles()") == 1

    assert await is_cut_off(before.connection)
    assert not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", before.vm.role)


@pytest.mark.parametrize("statement", ["DELETE FROM vms", "TRUNCATE TABLE vms", "UPDATE vms SET status = 'retired'"])
async def test_the_role_of_a_machine_that_is_no_more_is_dropped_and_its_session_cut(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    gone, other = await machine(database, "vm-1"), None
    await owner.execute(statement)
    other = await machine(database, "vm-2")

    swept = [await service.fetchval("SELECT sweep_roles()") for _ in range(2)]

    assert swept == [1, 0]
    assert await is_cut_off(gone.connection)
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(gone.vm.dsn)
    assert (await other.hello())["status"] == "available"


async def test_a_role_that_made_things_is_dropped_all_the_same(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    gone, other = await machine(database, "vm-1"), await machine(database, "vm-2")
    superuser = await database.connect("postgres")
    await superuser.execute("GRANT EXECUTE ON FUNCTION lo_create(oid) TO PUBLIC")  # as on a managed service
    number = await gone.connection.fetchval("SELECT lo_create(0)")
    await gone.connection.execute(f"GRANT SELECT ON LARGE OBJECT {number} TO {other.vm.role}, lablink")
    await gone.connection.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO lablink_client")
    await owner.execute("DELETE FROM vms")

    assert await service.fetchval("SELECT sweep_roles()") == 2

    assert await owner.fetchval("SELECT count(*) FROM vm_roles") == 0
    assert await owner.fetchval("SELECT count(*) FROM pg_largeobject_metadata") == 0


async def test_a_role_that_cannot_be_dropped_stops_no_other_from_being_dropped(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    stuck, gone = await machine(database, "vm-1"), await machine(database, "vm-2")
    superuser = await database.connect("postgres")
    await superuser.execute(f"GRANT CREATE ON DATABASE postgres TO {stuck.vm.role}")
    await owner.execute("DELETE FROM vms")

    swept = await service.fetchval("SELECT sweep_roles()")

    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(stuck.vm.dsn)
    left = [row["role"] for row in await owner.fetch("SELECT role FROM vm_roles")]
    assert (swept, left) == (1, [stuck.vm.role])
    assert not await owner.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", gone.vm.role)
    await superuser.execute(f"REVOKE CREATE ON DATABASE postgres FROM {stuck.vm.role}")
    assert await service.fetchval("SELECT sweep_roles()") == 1


async def test_a_session_that_outlived_its_role_is_cut(database: Database, owner: asyncpg.Connection) -> None:
    ghost = await machine(database)
    superuser = await database.connect("postgres")
    await superuser.execute(f"DROP ROLE {ghost.vm.role}")

    assert await owner.fetchval("SELECT cut_sessions(10)") == 1

    assert await is_cut_off(ghost.connection)


SALT, KEY = "A" * 22 + "==", "B" * 43 + "="


@pytest.mark.parametrize(
    "scram",
    [
        f"SCRAM-SHA-256$4096:{SALT}${'=' * 44}:{KEY}",
        f"SCRAM-SHA-256$4096:{SALT}${'B' * 44}:{KEY}",
        f"SCRAM-SHA-256$4096:{'A' * 23}=${KEY}:{KEY[:-2]}==",
        f"SCRAM-SHA-256$4096:{'A=' * 12}${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:{'A' * 23}${KEY}:{KEY}",
        f"SCRAM-SHA-256$4096:{SALT}${KEY}:{KEY}\n",
    ],
)
async def test_what_postgresql_would_take_for_a_password_is_no_verifier(
    owner: asyncpg.Connection, service: asyncpg.Connection, scram: str
) -> None:
    await invite(owner)

    with refused("LL006"):
        await enrol(service, scram=scram)


async def test_enrolling_again_after_the_row_was_deleted_needs_a_new_token(
    owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await invite(owner)
    await enrol(service)
    await owner.execute("DELETE FROM vms")

    with refused("LL006"):
        await enrol(service)


async def test_a_new_machine_whose_journal_remembers_an_earlier_life_is_cleaned_past_it(
    database: Database, owner: asyncpg.Connection
) -> None:
    await machine(database, "vm-1")
    await owner.execute("TRUNCATE TABLE vms RESTART IDENTITY")
    again = await machine(database, "vm-1", status="booting")

    orders = await again.hello(41, None)

    assert (orders["status"], orders["epoch"]) == ("cleaning", 42)
