"""An admin who has the fleet changed over HTTP: the service with the real terraform, on a stand-in for AWS."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio

from tests.sql.steps import ADA
from tests.support.cloud import NAME, Aws, fresh, moto_server
from tests.support.database import Database
from tests.support.fleet import admin, owner_password
from tests.support.service import ready, running_service, settings_for, streaming
from tests.terraform.machines import arrives, lend

pytestmark = pytest.mark.timeout(900)
OPERATIONS = "/api/v1/operations"


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[Aws]:
    with moto_server() as url:
        yield fresh(url, tmp_path)


@pytest_asyncio.fixture
async def ada(
    database: Database,
    aws: Aws,
    tmp_path: Path,
    terraform_environment: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[httpx.AsyncClient]:
    """An admin of a service whose fleet is there."""
    for name, value in (terraform_environment | aws.environment).items():
        monkeypatch.setenv(name, value)
    settings = settings_for(database, tmp_path, owner_password(tmp_path), *aws.options(tmp_path / "work"))
    headers = await admin(await database.connect("lablink"))
    async with running_service(settings) as service, service.client(headers=headers) as client:
        await ready(service.service)
        yield client


async def followed(client: httpx.AsyncClient, wanted: dict[str, Any]) -> list[dict[str, Any]]:
    """Have it done; every state of the operation that is told, the last of which is its end."""
    begun = await client.post(OPERATIONS, json=wanted)
    assert begun.status_code == 202, begun.text
    told = [begun.json()]
    async with streaming(client, f"{begun.headers['Location']}/events", seconds=600) as events:
        while told[-1]["finished_at"] is None:
            told.append(json.loads(await events.next("progress", "end")))
    return told


async def test_a_fleet_grows_while_an_admin_watches_and_keeps_the_machine_that_somebody_is_on(
    database: Database, ada: httpx.AsyncClient, aws: Aws
) -> None:
    *told, grown = await followed(ada, {"kind": "grow", "number": 2})
    assert grown["status"] == "done" and grown["result"]["make"] == ["vm-1", "vm-2"]
    assert set(aws.instances()) == {"vm-1", "vm-2"}
    assert any(each["total"] and each["step"].startswith("create: ") for each in told)
    assert [each["done"] for each in told if each["total"]] == sorted(each["done"] for each in told if each["total"])

    await arrives(database, aws, "vm-1")
    await lend(database)
    refused = (await followed(ada, {"kind": "destroy", "confirm": NAME}))[-1]
    assert refused["status"] == "failed" and ADA in refused["error"]
    assert set(aws.instances()) == {"vm-1", "vm-2"}


async def test_an_operation_that_is_ended_lets_terraform_finish_and_can_go_on(
    database: Database, ada: httpx.AsyncClient, aws: Aws
) -> None:
    owner: asyncpg.Connection = await database.connect("lablink")
    begun = await ada.post(OPERATIONS, json={"kind": "grow", "number": 2})
    async with streaming(ada, f"{begun.headers['Location']}/events", seconds=600) as events:
        while not (json.loads(await events.next("progress"))["step"] or "").startswith("create: "):
            pass
        assert (await ada.post(OPERATIONS, json={"kind": "plan"})).status_code == 409
        assert (await ada.delete(begun.headers["Location"])).status_code == 202
        over = json.loads(await events.next("end"))
    assert (over["status"], over["error"]) == ("failed", "interrupted")

    again = (await followed(ada, {"kind": "grow", "number": 2}))[-1]

    assert again["status"] == "done"
    assert set(aws.instances()) == {"vm-1", "vm-2"}
    assert await owner.fetchval("SELECT count(*) FROM fleet_vms WHERE invited_at IS NOT NULL") == 2
