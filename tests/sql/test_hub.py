"""The hub's side of the rules: each call is the machine's whose token it shows, and nobody else's."""

from uuid import uuid4

import asyncpg
import pytest

from client.scram import verifier
from tests.sql.speaking import OTHER, TOKEN, call, claims, hellos, known
from tests.sql.steps import ask, lease_of, row_of, sha256
from tests.support.database import Database


async def test_a_lease_is_served_by_calls_that_show_the_token(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    lease = (await ask(service, argv=["echo", "hello"]))["lease_id"]

    orders = (await call(service, "hello", epoch=0, lease_id=None))["answer"]
    claimed = (await call(service, "claim", epoch=orders["epoch"]))["answer"]
    told = {"lease_id": str(lease), "epoch": 1, "exit_code": 0, "output": "hello\n"}
    assert await call(service, "report", outcome="exited", **told) == {"answer": "active"}
    await service.execute("SELECT end_lease($1)", lease)
    assert await call(service, "cleaned", epoch=2) == {"answer": "available"}

    assert (orders["status"], orders["lease_id"], orders["transport"]) == ("in-use", str(lease), "direct")
    assert claimed["command"] == {"argv": ["echo", "hello"]}
    assert (await lease_of(owner, lease))["output"] == "hello\n"
    assert await owner.fetchval("SELECT array_agg(DISTINCT actor) FROM events WHERE kind = 'lease.claimed'") == ["vm-1"]


async def test_what_the_service_does_after_a_call_is_its_own_again(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    await call(service, "hello", epoch=0, lease_id=None)
    lease = (await ask(service))["lease_id"]
    assert await owner.fetchval("SELECT actor FROM events WHERE lease_id = $1 LIMIT 1", lease) == "web"


@pytest.mark.parametrize("token", [OTHER, b"", sha256("")])
async def test_a_token_that_is_no_machines_does_nothing(
    database: Database, service: asyncpg.Connection, token: bytes
) -> None:
    await known(database)
    for verb in ("hello", "claim", "cleaned", "unhealthy"):
        assert (await call(service, verb, token, epoch=0, reason="x"))["refused"] == "LL010"
    assert await hellos(service, (token, 0, None)) == {1: await call(service, "hello", token, epoch=0)}
    assert await claims(service, (token, 0)) == {}


@pytest.mark.parametrize("deletion", ["DELETE FROM vms", "TRUNCATE vms"])
async def test_the_last_machine_is_told_that_it_was_deleted(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, deletion: str
) -> None:
    await known(database)
    await owner.execute(deletion)
    await owner.execute("VACUUM ANALYZE vms")  # from now on the planner knows that there is none
    for verb in ("hello", "claim", "cleaned", "unhealthy"):
        assert (await call(service, verb, epoch=0, reason="x"))["refused"] == "LL002"


async def test_a_machine_acts_for_itself_only(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    await known(database, "vm-2", OTHER)
    await call(service, "unhealthy", OTHER, epoch=0, reason="x", vm_id=1, hostname="vm-1")
    assert [(await row_of(owner, name))["status"] for name in ("vm-1", "vm-2")] == ["available", "failed"]


async def test_nobody_becomes_a_machine_by_a_setting(database: Database, service: asyncpg.Connection) -> None:
    vm, other = await known(database), await known(database, "vm-2", OTHER)
    await other.connection.execute("SELECT set_config('lablink.machine', $1, false)", vm.vm.role)
    assert (await other.hello())["hostname"] == "vm-2"
    await service.execute("SELECT set_config('lablink.machine', $1, false)", vm.vm.role)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await service.execute("SELECT client_api.hello(0, NULL)")
    assert (await call(service, "hello", OTHER, epoch=0))["answer"]["hostname"] == "vm-2"


@pytest.mark.parametrize(
    ("verb", "said", "refusal"),
    [
        ("claim", {"epoch": 7}, "LL001"),
        ("claim", {"epoch": 0}, "LL008"),
        ("dance", {}, "LL003"),
        ("hello", {"epoch": "x"}, "22P02"),
        ("hello", {"epoch": 10**30}, "22003"),
        ("report", {"epoch": 0, "lease_id": "x"}, "22P02"),
        ("booted", {"boot": str(uuid4()), "phases": [["\0", 1]]}, "22P05"),
        ("change_password", {"verifier": "x", "hub_sha256": "abc"}, "22023"),
        ("change_password", {"verifier": "x", "hub_sha256": "ab"}, "LL003"),
    ],
)
async def test_what_cannot_be_done_is_refused_and_the_session_goes_on(
    database: Database, service: asyncpg.Connection, verb: str, said: dict[str, object], refusal: str
) -> None:
    await known(database)
    assert (await call(service, verb, **said))["refused"] == refusal


async def test_a_new_password_takes_the_old_token_with_it(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    said = {"verifier": verifier("new"), "hub_sha256": OTHER.hex()}
    assert await call(service, "change_password", **said) == {"answer": False}
    await owner.execute("SELECT rotate_vm('vm-1')")
    assert (await call(service, "hello", epoch=0, lease_id=None))["answer"]["new_password"]
    assert await call(service, "change_password", **said) == {"answer": True}
    assert (await call(service, "hello", epoch=0))["refused"] == "LL010"
    assert not (await call(service, "hello", OTHER, epoch=0))["answer"]["new_password"]


async def test_a_password_that_is_changed_over_postgresql_ends_the_token_too(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    vm = await known(database)
    await owner.execute("SELECT rotate_vm('vm-1')")
    await vm.connection.execute("SELECT client_api.change_password($1)", verifier("new"))
    assert (await call(service, "hello", epoch=0))["refused"] == "LL010"


async def test_an_enrolment_brings_its_token_once(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    join = await owner.fetchval("SELECT token_sha256 FROM join_tokens")
    role = await owner.fetchval("SELECT role FROM vms")
    await owner.execute("UPDATE vm_roles SET hub_sha256 = NULL")
    kept = []
    for shown, token in ((sha256("not the join token"), OTHER), (join, OTHER), (join, TOKEN)):
        await service.execute("SELECT keep_hub_token($1, $2, $3)", shown, role, token)
        kept.append(await owner.fetchval("SELECT hub_sha256 FROM vm_roles"))
    assert kept == [None, OTHER, OTHER]


async def test_a_machine_invited_again_before_it_was_answered_comes_with_the_token_it_had(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    left = await owner.fetchval("SELECT role FROM vms")
    await owner.execute("SELECT invite_vm('vm-1', 'default', $1)", sha256("again"))
    role = await service.fetchval("SELECT role FROM enrol_vm($1, $2)", sha256("again"), verifier("the same"))
    await service.execute("SELECT keep_hub_token($1, $2, $3)", sha256("again"), role, TOKEN)
    kept = {row["role"]: row["hub_sha256"] for row in await owner.fetch("SELECT role, hub_sha256 FROM vm_roles")}
    assert kept == {left: None, role: TOKEN}
    assert (await call(service, "hello", epoch=0, lease_id=None))["answer"]["hostname"] == "vm-1"


async def test_the_token_of_another_machine_is_refused_with_what_to_do(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await known(database)
    copy = await known(database, "vm-2", OTHER)
    with pytest.raises(asyncpg.PostgresError, match="another machine has this password") as refused:
        await copy.connection.execute("SELECT client_api.keep_hub_token($1)", TOKEN)
    assert refused.value.sqlstate == "LL006" and "state directory" in (refused.value.hint or "")
    assert (await call(service, "hello", epoch=0, lease_id=None))["answer"]["hostname"] == "vm-1"


async def test_a_token_is_a_hash(database: Database) -> None:
    vm = await known(database)
    with pytest.raises(asyncpg.CheckViolationError):
        await vm.connection.execute("SELECT client_api.keep_hub_token('secret')")


async def test_a_pools_machines_are_told_how_to_speak(database: Database, service: asyncpg.Connection) -> None:
    vm = await known(database)
    await service.execute("SELECT ensure_transport('default', 'hub')")
    assert await vm.connection.fetchval("SELECT client_api.transport()") == "hub"
    with pytest.raises(asyncpg.CheckViolationError):
        await service.execute("SELECT ensure_transport('default', 'pigeon')")
