"""What machines say at the same moment over the hub reaches the database as one statement, whichever verb it is."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest_asyncio

from allocator.calls import Calls
from allocator.connection import pooled_connector
from allocator.said import Said
from allocator.tokens import sha256
from client.scram import hub_token
from tests.support.database import Database
from tests.support.hub import hub_machine
from tests.support.machine import Machine, Pool
from tests.support.service import settings_for

MANY = 5
HEARTBEATS = "SELECT count(DISTINCT xmin::text) = 1 AND count(*) = $1 FROM vm_heartbeats"
LEASES = "SELECT count(DISTINCT xmin::text) = 1 AND count(*) = $1 FROM leases WHERE status = $2"
MACHINES = "SELECT count(DISTINCT xmin::text) = 1 AND count(*) = $1 FROM vms WHERE status = 'available'"

IN_THE_WAY = """
    CREATE SEQUENCE batches;
    ALTER FUNCTION hub_hello(bytea[], bigint[], uuid[], integer[]) RENAME TO hub_hello_in_peace;
    CREATE FUNCTION hub_hello(bytea[], bigint[], uuid[], integer[]) RETURNS TABLE (place bigint, answer jsonb)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$
    BEGIN
        PERFORM nextval('batches');
        RAISE deadlock_detected;
    END $$;
    GRANT EXECUTE ON FUNCTION hub_hello(bytea[], bigint[], uuid[], integer[]) TO lablink_app;
"""
"""All hellos that come together meet another change."""


@pytest_asyncio.fixture
async def calls(database: Database, tmp_path: Path) -> AsyncIterator[Calls]:
    """What the hub asks with."""
    async with Calls.open(pooled_connector(settings_for(database, tmp_path).database, "hub")) as own:
        yield own


@pytest_asyncio.fixture
async def machines(database: Database, pool: Pool, tmp_path: Path) -> list[Machine]:
    """Machines that are known to the hub, each lent to somebody at its first epoch."""
    machines = [await hub_machine(database, tmp_path / f"vm-{n}", f"vm-{n}") for n in range(MANY)]
    for _ in machines:
        await pool.request_job(["sh"])
    return machines


async def say(calls: Calls, machines: Sequence[Machine], words: Callable[[Machine], dict[str, Any]]) -> list[Any]:
    """All of them say it at once; what each is answered."""
    said = [(sha256(hub_token(each.address.password)), Said.of(json.dumps(words(each)))) for each in machines]
    answers = await asyncio.gather(*(calls.answer(token, each) for token, each in said))
    return [json.loads(answer)["answer"] for answer in answers]


async def test_of_each_verb_those_who_come_together_are_one_transaction(
    calls: Calls, machines: list[Machine], pool: Pool
) -> None:
    orders = await say(calls, machines, lambda _: {"verb": "hello", "epoch": 0})
    assert [each["hostname"] for each in orders] == [machine.vm.hostname for machine in machines]
    assert await pool.owner.fetchval(HEARTBEATS, MANY)

    claims = await say(calls, machines, lambda _: {"verb": "claim", "epoch": 1})
    leases = {machine.vm.id: claim["lease_id"] for machine, claim in zip(machines, claims, strict=True)}
    assert [str(each["lease_id"]) for each in orders] == list(leases.values())
    assert await pool.owner.fetchval(LEASES, MANY, "claimed")

    told = {"verb": "report", "epoch": 1, "outcome": "started"}
    await say(calls, machines, lambda machine: {**told, "lease_id": leases[machine.vm.id]})
    assert await pool.owner.fetchval(LEASES, MANY, "active")

    for lease in leases.values():
        await pool.end(lease)
    await say(calls, machines, lambda _: {"verb": "cleaned", "epoch": 2})
    assert await pool.owner.fetchval(MACHINES, MANY)


async def test_those_who_together_meet_another_change_are_answered_one_by_one_at_once(
    calls: Calls, machines: list[Machine], pool: Pool
) -> None:
    await pool.owner.execute(IN_THE_WAY)

    orders = await say(calls, machines, lambda _: {"verb": "hello", "epoch": 0})

    assert [each["hostname"] for each in orders] == [machine.vm.hostname for machine in machines]
    assert await pool.owner.fetchval("SELECT last_value FROM batches") == 1
