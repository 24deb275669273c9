"""What the service passes on for machines that speak over the hub."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from tests.sql.steps import Machine, ask, machine, sha256
from tests.support.database import Database

TOKEN, OTHER, THIRD = (sha256(f"token of vm-{number}") for number in (1, 2, 3))
TOKENS = {"vm-1": TOKEN, "vm-2": OTHER, "vm-3": THIRD}


async def call(service: asyncpg.Connection, verb: str, token: bytes = TOKEN, /, **said: object) -> dict[str, Any]:
    text = json.dumps({"verb": verb, **said})
    answer: dict[str, Any] = json.loads(await service.fetchval("SELECT hub_call($1, $2, $3)", token, verb, text))
    return answer


async def hellos(service: asyncpg.Connection, *said: tuple[bytes, int, UUID | None]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1; a refusal as it is."""
    heard = await _together(service, "hub_hello($1, $2, $3)", said)
    return {place: said.get("answer", said) for place, said in heard.items()}


async def idle_hellos(service: asyncpg.Connection, *said: tuple[bytes, int, UUID | None, int | None]) -> set[int]:
    """The places that were answered, of machines that say since when nobody used them."""
    return set(await _together(service, "hub_hello($1, $2, $3, $4)", said))


async def claims(service: asyncpg.Connection, *said: tuple[bytes, int]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1."""
    heard = await _together(service, "hub_claim($1, $2)", said)
    return {place: said["answer"] for place, said in heard.items()}


async def reports(service: asyncpg.Connection, *said: tuple[bytes, UUID, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1, to reports of these leases."""
    names = ("epoch", "outcome", "exit_code", "output", "failure")
    rows = [(token, lease, *(report[name] for name in names)) for token, lease, report in said]
    return await _together(service, "hub_report($1, $2, $3, $4, $5, $6, $7)", rows)


async def cleanings(service: asyncpg.Connection, *said: tuple[bytes, int]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1."""
    return await _together(service, "hub_cleaned($1, $2)", said)


async def _together(
    service: asyncpg.Connection, call: str, said: Sequence[tuple[object, ...]]
) -> dict[int, dict[str, Any]]:
    columns = [list(column) for column in zip(*said, strict=True)]
    rows = await service.fetch(f"SELECT * FROM {call}", *columns)
    return {row["place"]: json.loads(row["answer"]) for row in rows}


async def known(database: Database, hostname: str = "vm-1", token: bytes = TOKEN) -> Machine:
    """A machine that is available, and known to the hub."""
    vm = await machine(database, hostname)
    await vm.connection.execute("SELECT client_api.keep_hub_token($1)", token)
    return vm


async def lent(database: Database, service: asyncpg.Connection, kind: str, *emails: str) -> dict[str, UUID]:
    """Machines, each with somebody's command; it has claimed that."""
    await service.execute("SELECT ensure_pool('default', true, ARRAY['echo'], 600, 90, 600)")
    leases: dict[str, UUID] = {}
    for (hostname, token), email in zip(TOKENS.items(), emails, strict=False):
        await known(database, hostname, token)
        leases[hostname] = (await ask(service, email, argv=["echo"] if kind == "job" else None))["lease_id"]
        assert (await call(service, "claim", token, epoch=1))["answer"]["lease_id"] == str(leases[hostname])
    return leases


def report(outcome: str, exit_code: int | None = None, output: str = "", failure: str | None = None) -> dict[str, Any]:
    return {"epoch": 1, "outcome": outcome, "exit_code": exit_code, "output": output, "failure": failure}
