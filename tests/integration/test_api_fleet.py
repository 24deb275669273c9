"""What admins do over the HTTP API: who may, one operation at a time, seen while it goes on, ended when they say so."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
import pytest_asyncio

from allocator.guesses import WRONG_TOKENS
from allocator.operations import running
from allocator.upkeep.reach import connect
from tests.sql.steps import ADA, lent, row_of
from tests.support.database import Database
from tests.support.fleet import NAME, admin, fleet_without_cloud, owner_password
from tests.support.machine import Pool
from tests.support.service import RunningService, ready, running_service, settings_for, streaming
from tests.support.under_way import started

OPERATIONS = "/api/v1/operations"
SHRINK = {"kind": "shrink", "number": 1, "drain": True}


@pytest_asyncio.fixture
async def with_fleet(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningService]:
    """A service that has a fleet, and no credentials for AWS."""
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    settings = settings_for(database, tmp_path, owner_password(tmp_path), *fleet_without_cloud(tmp_path))
    async with running_service(settings) as service:
        await ready(service.service)
        yield service


@pytest_asyncio.fixture
async def ada(with_fleet: RunningService, owner: asyncpg.Connection) -> AsyncIterator[httpx.AsyncClient]:
    """An admin."""
    async with with_fleet.client(headers=await admin(owner)) as client:
        yield client


@pytest_asyncio.fixture
async def in_use(database: Database, owner: asyncpg.Connection) -> asyncpg.Connection:
    """Somebody is on vm-1, which is of the fleet; the connection of the service that lent it."""
    service = await database.connect("lablink_app", **{"lablink.actor": "web"})
    await lent(database, service)
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")
    return service


async def ended(client: httpx.AsyncClient, number: int) -> dict[str, object]:
    """The operation, when it is over."""
    async with streaming(client, f"{OPERATIONS}/{number}/events") as events:
        found: dict[str, object] = json.loads(await events.next("end"))
        return found


@pytest.mark.usefixtures("with_fleet")
async def test_the_price_of_the_fleets_default_type_is_that_of_the_pool(owner: asyncpg.Connection) -> None:
    assert str(await owner.fetchval("SELECT price_per_hour FROM pools")) == "0.1"


async def test_without_a_token_nothing_is_told_but_how_to_get_one(client: httpx.AsyncClient) -> None:
    for path in (OPERATIONS, f"{OPERATIONS}/1", f"{OPERATIONS}/1/events", "/api/v1/fleet", "/api/v1/fleet/cost"):
        answer = await client.get(path)

        assert (answer.status_code, answer.json()["type"]) == (401, "urn:lablink:not-admin")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        assert "lablink admins add NAME" in answer.json()["detail"]


async def test_a_wrong_an_expired_and_a_removed_token_are_answered_alike(
    ada: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    wrong = await ada.get(OPERATIONS, headers={"Authorization": "Bearer wrong"})
    assert (await ada.get(OPERATIONS)).status_code == 200

    await owner.execute("UPDATE admins SET expires_at = clock()")
    expired = await ada.get(OPERATIONS)
    await owner.execute("SELECT remove_admin('ada')")
    removed = await ada.get(OPERATIONS)

    assert wrong.status_code == 401
    assert wrong.json() == expired.json() == removed.json()


async def test_who_tries_token_after_token_waits_and_who_had_a_right_one_does_not(
    ada: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    await ada.get(OPERATIONS)
    for number in range(WRONG_TOKENS):
        await ada.get(OPERATIONS, headers={"Authorization": f"Bearer wrong-{number}"})

    another = await admin(owner, "eve", "new")
    refused = await ada.get(OPERATIONS, headers=another)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "60")
    assert (await ada.get(OPERATIONS)).status_code == 200


async def test_without_a_fleet_it_is_said_what_is_missing(client: httpx.AsyncClient, owner: asyncpg.Connection) -> None:
    client.headers.update(await admin(owner))

    begun = await client.post(OPERATIONS, json={"kind": "grow", "number": 1})
    cost = await client.get("/api/v1/fleet/cost")

    assert begun.json() == cost.json() and begun.status_code == 409
    assert "--set fleet=aws" in begun.json()["detail"]
    assert (await client.get("/api/v1/fleet")).json() == []


async def test_an_operation_waits_for_people_while_others_run_and_is_ended_by_its_admin(
    ada: httpx.AsyncClient, owner: asyncpg.Connection, database: Database, in_use: asyncpg.Connection
) -> None:
    begun = await ada.post(OPERATIONS, json=SHRINK)
    number = begun.json()["id"]
    assert (begun.status_code, begun.headers["Location"]) == (202, f"{OPERATIONS}/{number}")

    async with streaming(ada, f"{OPERATIONS}/{number}/events") as events:
        while (seen := json.loads(await events.next("progress")))["step"] is None:
            pass
        assert (seen["status"], seen["kind"], seen["started_by"]) == ("waiting", "fleet shrink", "admin:ada")
        assert seen["step"].startswith(f"waiting for vm-1: {ADA}")
        async with running(lambda: connect(database.dsn("lablink")), "backup", "cli"):
            assert (await ada.get(begun.headers["Location"])).json()["status"] == "waiting"
        assert (await row_of(owner))["draining"]

        assert (await ada.delete(begun.headers["Location"])).status_code == 202
        over = json.loads(await events.next("end"))
        assert await events.rest() == []

    assert (over["status"], over["error"], over["step"]) == ("failed", "interrupted", None)
    assert (await row_of(owner))["draining"] is False
    assert (await ada.delete(begun.headers["Location"])).json()["type"] == "urn:lablink:illegal-change"
    drained = await owner.fetchval("SELECT actor FROM events WHERE kind = 'vm.draining'")
    assert drained == "admin:ada"


async def test_an_operation_is_ended_at_any_allocator(
    with_fleet: RunningService, ada: httpx.AsyncClient, owner: asyncpg.Connection, in_use: asyncpg.Connection
) -> None:
    place = (await ada.post(OPERATIONS, json=SHRINK)).headers["Location"]

    async with (
        running_service(with_fleet.service.settings) as other,
        other.client(headers=ada.headers) as there,
        streaming(there, f"{place}/events") as events,
    ):
        assert (await there.delete(place)).status_code == 202
        over = json.loads(await events.next("end"))

    assert (over["status"], over["error"]) == ("failed", "interrupted")
    assert await owner.fetchval("SELECT cancelled_by FROM operations ORDER BY id DESC LIMIT 1") == "admin:ada"
    assert (await row_of(owner))["draining"] is False


async def test_an_operation_in_a_terminal_is_ended_over_http_and_the_terminal_says_by_whom(
    ada: httpx.AsyncClient, database: Database, in_use: asyncpg.Connection, tmp_path: Path
) -> None:
    fleet = [f"--set={each}" for each in fleet_without_cloud(tmp_path)]
    terminal = await started(database, "fleet", "shrink", "1", "--drain", *fleet)
    pool = await Pool.of(database)
    await pool.until("SELECT bool_or(status = 'waiting') FROM operations")
    number = await pool.owner.fetchval("SELECT max(id) FROM operations")

    assert (await ada.delete(f"{OPERATIONS}/{number}")).status_code == 202

    _, said = await terminal.communicate()
    assert (terminal.returncode, b"admin:ada ended it over the HTTP API" in said) == (1, True)


@pytest.mark.parametrize("status", ["running", "waiting"])
async def test_an_operation_whose_allocator_was_killed_is_closed_when_an_admin_ends_it(
    ada: httpx.AsyncClient, owner: asyncpg.Connection, status: str
) -> None:
    dead = "INSERT INTO operations (kind, status) VALUES ('fleet apply', $1) RETURNING id"
    number = await owner.fetchval(dead, status)

    over = (await ada.delete(f"{OPERATIONS}/{number}")).json()

    assert (over["status"], over["error"]) == ("failed", "interrupted")


async def test_what_is_no_operation_on_the_fleet_is_not_ended_over_http(
    ada: httpx.AsyncClient, database: Database
) -> None:
    async with running(lambda: connect(database.dsn("lablink")), "backup", "grace") as backup:
        refused = await ada.delete(f"{OPERATIONS}/{backup.id}")

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lablink:illegal-change")


async def test_an_operation_goes_on_when_the_people_are_gone(
    ada: httpx.AsyncClient, owner: asyncpg.Connection, in_use: asyncpg.Connection
) -> None:
    number = (await ada.post(OPERATIONS, json=SHRINK)).json()["id"]
    async with streaming(ada, f"{OPERATIONS}/{number}/events") as events:
        while json.loads(await events.next("progress"))["status"] != "waiting":
            pass
        await owner.execute("SELECT end_lease(id) FROM leases")
        over = json.loads(await events.next("end"))

    assert over["error"].startswith("AWS refuses")  # which is asked next, and not there
    assert await owner.fetchval("SELECT wanted FROM fleet_vms") is False


async def test_a_service_that_stops_ends_what_it_is_at_and_whoever_follows(
    with_fleet: RunningService, ada: httpx.AsyncClient, owner: asyncpg.Connection, in_use: asyncpg.Connection
) -> None:
    number = (await ada.post(OPERATIONS, json=SHRINK)).json()["id"]
    async with streaming(ada, f"{OPERATIONS}/{number}/events") as events:
        await events.next("progress")
        stopping = asyncio.create_task(with_fleet.stop())
        assert set(await events.rest()) <= {"progress"}
        await stopping

    row = await owner.fetchrow("SELECT status, error FROM operations WHERE id = $1", number)
    assert row is not None and tuple(row) == ("failed", "interrupted")


async def test_one_operation_runs_at_a_time_and_who_is_at_it_is_told(
    ada: httpx.AsyncClient, database: Database
) -> None:
    async with running(lambda: connect(database.dsn("lablink")), "restore", "grace"):
        refused = await ada.post(OPERATIONS, json={"kind": "apply"})

    assert (refused.status_code, refused.json()["type"]) == (409, "urn:lablink:operation-under-way")
    assert "a restore runs since" in refused.json()["detail"] and "started by grace" in refused.json()["detail"]


async def test_everything_goes_only_for_who_says_its_name(ada: httpx.AsyncClient) -> None:
    refused = await ada.post(OPERATIONS, json={"kind": "destroy", "confirm": "yes"})
    assert refused.status_code == 422 and NAME in refused.json()["detail"]

    begun = await ada.post(OPERATIONS, json={"kind": "destroy", "confirm": NAME})
    assert begun.json()["kind"] == "fleet destroy"
    assert (await ended(ada, begun.json()["id"]))["status"] == "failed"
    assert [each["kind"] for each in (await ada.get(f"{OPERATIONS}?limit=1")).json()] == ["fleet destroy"]


@pytest.mark.parametrize(
    ("wanted", "field"),
    [
        ({}, "kind"),
        ({"kind": "unlock"}, "kind"),
        ({"kind": "grow"}, "number"),
        ({"kind": "grow", "number": 0}, "number"),
        ({"kind": "replace", "hostname": "VM 1"}, "hostname"),
    ],
)
async def test_what_is_not_right_is_named(ada: httpx.AsyncClient, wanted: dict[str, object], field: str) -> None:
    refused = await ada.post(OPERATIONS, json=wanted)

    assert refused.status_code == 422
    assert [each["field"] for each in refused.json()["errors"]] == [field]


async def test_the_fleet_and_what_it_costs_are_shown(
    ada: httpx.AsyncClient, in_use: asyncpg.Connection, owner: asyncpg.Connection
) -> None:
    await owner.execute("UPDATE fleet_vms SET instance_id = 'i-1', made_at = clock()")

    (vm,) = (await ada.get("/api/v1/fleet")).json()
    cost = (await ada.get("/api/v1/fleet/cost")).json()

    assert (vm["hostname"], vm["held_by"], vm["status"]) == ("vm-1", ADA, "in-use")
    assert cost["kinds"] == [{"pool": "default", "instance_type": "t3.large", "vms": 1, "hour": 0.1, "month": 73.0}]


async def test_there_is_no_operation_of_that_number(ada: httpx.AsyncClient) -> None:
    for method, path in (("GET", ""), ("DELETE", ""), ("GET", "/events")):
        answer = await ada.request(method, f"{OPERATIONS}/4711{path}")
        assert (answer.status_code, answer.json()["type"]) == (404, "urn:lablink:no-such-operation")
