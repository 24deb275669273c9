"""A machine's real credential in the hands of somebody hostile changes nothing and learns nothing."""

import asyncio
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest_asyncio

from tests.sql.steps import ADA, CODE, LONG_AGO, PIN
from tests.sql.test_roles import FUNCTIONS, RELATIONS, STATEMENTS
from tests.support import LIMIT_SECONDS
from tests.support.database import Database, Vm
from tests.support.machine import Machine, Pool

BURST = 500
MEGABYTE = "x" * 1_000_000
NOT_COMPARED = {"public.vm_heartbeats", "public.sweeps"}
SUMS = "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, '|' ORDER BY t::text)), '') FROM {} AS t"
ROLES = """
    SELECT jsonb_agg(to_jsonb(r) || to_jsonb(coalesce((SELECT array_agg(m.roleid::int) FROM pg_auth_members m
                                                       WHERE m.member = r.oid), '{}')) ORDER BY r.rolname)
    FROM pg_authid r WHERE r.rolname ~ '^(lablink|pg_|postgres)'
"""
BECOME = ("lablink", "lablink_app", "lablink_reader", "postgres", "pg_read_all_data", "pg_execute_server_program")
SHADOWS = (
    "CREATE TEMPORARY TABLE vms (id int, role name, status text, epoch bigint, lease_id uuid)",
    "CREATE TEMPORARY VIEW leases AS SELECT 1",
    "CREATE FUNCTION pg_temp.client_vm(boolean) RETURNS int LANGUAGE sql RETURN 1",
    "CREATE FUNCTION public.clock() RETURNS timestamptz LANGUAGE sql RETURN now()",
    "CREATE TYPE pg_temp.vms AS (id int)",
)
FILES = (
    "COPY (SELECT 1) TO '/tmp/stolen'",
    "COPY (SELECT 1) TO PROGRAM 'id'",
    "SELECT pg_read_file('/etc/passwd')",
    "SELECT pg_ls_dir('.')",
    "SELECT lo_import('/etc/passwd')",
    "SELECT lo_create(0)",
    "SELECT * FROM pg_authid",
    "SELECT * FROM pg_hba_file_rules",
    "ALTER SYSTEM SET log_statement = 'all'",
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'lablink'",
)


@dataclass(slots=True)
class Scene:
    """A machine in hostile hands beside one that somebody works on, and a pool that is watched by its owner."""

    database: Database
    pool: Pool
    hostile: Vm
    other: Vm
    superuser: asyncpg.Connection
    said: list[str]

    async def tries(self, connection: asyncpg.Connection, statement: str, *arguments: object) -> bool:
        """Whether the statement was carried out; what it was answered is kept."""
        try:
            self.said += [str(dict(row)) for row in await connection.fetch(statement, *arguments)]
        except asyncpg.PostgresError as refusal:
            self.said.append(str(refusal.as_dict()))
            return False
        return True

    async def sums(self) -> dict[str, str]:
        """Every table and every role, each as a checksum."""
        tables = [r["name"] for r in await self.superuser.fetch(RELATIONS) if r["kind"] in "rp"]
        tables = [name if "." in name else f"public.{name}" for name in tables]
        sums = {name: await self.superuser.fetchval(SUMS.format(name)) for name in tables if name not in NOT_COMPARED}
        return sums | {"roles": await self.superuser.fetchval(ROLES)}


@pytest_asyncio.fixture
async def scene(database: Database) -> Scene:
    hostile, other = await database.vm("vm-1"), await database.vm("vm-2")
    pool = await Pool.of(database)
    await pool.owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")  # so that it is not lent
    line = json.dumps({"redirect_url": "https://remotedesktop.google.com/_/oauthredirect"})
    await pool.owner.execute(
        "SELECT request_vm($1, 'desktop', $2, $3, '', sha256('t'), '\\x00')",
        ADA,
        line,
        json.dumps({"code": CODE, "pin": PIN}),
    )
    return Scene(database, pool, hostile, other, await database.connect("postgres"), [])


async def test_what_a_hostile_machine_can_say_changes_nothing_and_tells_it_nothing(scene: Scene) -> None:
    catalogue = await scene.database.connect("lablink", search_path="")
    before = await scene.sums()
    connection = await scene.hostile.connect()
    statements = [s.format(r["name"]) for r in await catalogue.fetch(RELATIONS) for s in STATEMENTS.get(r["kind"], [])]
    statements += [f["call"] for f in await catalogue.fetch(FUNCTIONS) if f["schema"] != "client_api"]
    statements += [*SHADOWS, *FILES, *(f"SET ROLE {role}" for role in (*BECOME, scene.other.role))]

    done = [statement for statement in statements if await scene.tries(connection, statement)]

    assert len(statements) > 200
    assert done == []
    assert await scene.sums() == before
    learnt = "\n".join(scene.said)
    for secret in (ADA, CODE, PIN):
        assert secret not in learnt


async def test_a_hostile_machine_cannot_speak_for_another(scene: Scene) -> None:
    lease = await scene.pool.owner.fetchrow("SELECT id, epoch FROM leases WHERE live")
    assert lease is not None
    before = await scene.sums()
    connection = await scene.hostile.connect()

    for epoch in (lease["epoch"], 0, -1, 2**62):
        for statement in (
            f"SELECT * FROM client_api.claim({epoch})",
            f"SELECT client_api.report('{lease['id']}', {epoch}, 'exited', 0, 'x', NULL)",
            f"SELECT client_api.report('{lease['id']}', {epoch}, 'failed', 1, 'x', 'lost')",
            f"SELECT client_api.hello({2**62}, '{lease['id']}')",
        ):
            assert not await scene.tries(connection, statement)

    assert await scene.sums() == before
    assert CODE not in "".join(scene.said)


async def test_giant_words_of_a_hostile_machine_are_cut_and_wake_nobody_with_them(scene: Scene) -> None:
    connection = await scene.hostile.connect()
    epoch = await connection.fetchval("SELECT epoch FROM client_api.hello(0, NULL)")

    await scene.tries(connection, "SELECT client_api.unhealthy($1, $2)", epoch, MEGABYTE)
    await scene.tries(connection, "SELECT client_api.change_password($1)", MEGABYTE)
    assert not await scene.tries(connection, "SELECT pg_notify('vm_updates', $1)", MEGABYTE)

    assert await scene.pool.owner.fetchval("SELECT max(length(v::text)) FROM vms v") < 1000
    assert await scene.pool.owner.fetchval("SELECT max(length(e::text)) FROM events e") < 1000


async def test_a_hundred_connections_of_a_hostile_machine_are_three_and_others_are_let_in(scene: Scene) -> None:
    async def connect() -> bool:
        with suppress(asyncpg.TooManyConnectionsError):
            await scene.hostile.connect()
            return True
        return False

    let_in = sum([sum(await asyncio.gather(*(connect() for _ in range(10)))) for _ in range(10)])
    async with asyncio.timeout(LIMIT_SECONDS):
        while let_in < 3:  # who come together are counted with those who are being refused
            let_in += await connect()

    assert let_in == 3
    assert not await connect()

    await scene.database.connect("lablink_app")
    await scene.other.connect()


async def test_forged_notifications_make_an_honest_client_look_and_do_nothing(scene: Scene, tmp_path: Path) -> None:
    machine = Machine.of(scene.other, tmp_path / "vm")
    machine.start_host("sleep 600")
    hostile = await scene.hostile.connect()
    async with machine.serving():
        await scene.pool.until("SELECT bool_or(started_at IS NOT NULL) FROM leases")
        before = await scene.sums()
        await scene.database.age(scene.other, LONG_AGO)
        for n in range(BURST):
            forged = [{"id": scene.other.id, "hostname": "vm-2", "status": "cleaning", "epoch": n}]
            await hostile.execute("SELECT pg_notify('vm_updates', $1)", json.dumps(forged) if n % 2 else "{" * n)
        await scene.pool.until("SELECT seen_at > clock() - interval '1 minute' FROM vm_heartbeats WHERE vm_id = 2")

        assert await scene.sums() == before
    assert machine.count_starts() == 1
