"""What the service passes on for machines that speak over the hub."""

import json
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg

from tests.sql.steps import Machine, machine, sha256
from tests.support.database import Database

TOKEN, OTHER = sha256("token of vm-1"), sha256("token of vm-2")


async def call(service: asyncpg.Connection, verb: str, token: bytes = TOKEN, /, **said: object) -> dict[str, Any]:
    text = json.dumps({"verb": verb, **said})
    answer: dict[str, Any] = json.loads(await service.fetchval("SELECT hub_call($1, $2, $3)", token, verb, text))
    return answer


async def hellos(service: asyncpg.Connection, *said: tuple[bytes, int, UUID | None]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1; a refusal as it is."""
    heard = await _together(service, "hub_hello($1, $2, $3)", said)
    return {place: said.get("answer", said) for place, said in heard.items()}


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
