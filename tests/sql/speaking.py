"""What the service passes on for machines that speak over the hub."""

import json
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
    columns = [list(column) for column in zip(*said, strict=True)]
    rows = await service.fetch("SELECT * FROM hub_hello($1, $2, $3)", *columns)
    heard = {row["place"]: json.loads(row["answer"]) for row in rows}
    return {place: said.get("answer", said) for place, said in heard.items()}


async def claims(service: asyncpg.Connection, *said: tuple[bytes, int]) -> dict[int, dict[str, Any]]:
    """The answers by place, from 1."""
    columns = [list(column) for column in zip(*said, strict=True)]
    rows = await service.fetch("SELECT * FROM hub_claim($1, $2)", *columns)
    return {row["place"]: json.loads(row["answer"])["answer"] for row in rows}


async def known(database: Database, hostname: str = "vm-1", token: bytes = TOKEN) -> Machine:
    """A machine that is available, and known to the hub."""
    vm = await machine(database, hostname)
    await vm.connection.execute("SELECT client_api.keep_hub_token($1)", token)
    return vm
