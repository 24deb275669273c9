"""Leases over the HTTP API: opened, read, ended; refused to others."""

import asyncio
import hashlib
from uuid import uuid4

import httpx

from allocator.tokens import pin_of
from tests.support.database import Database
from tests.support.service import DESKTOP_LINE, PlayedClient, RunningService

WANTED = {"email": "ada@example.org", "crd_command": "echo hi"}
LEASES = "/api/v1/leases"


def bearer(answer: httpx.Response) -> dict[str, str]:
    return {"Authorization": f"Bearer {answer.json()['token']}"}


async def test_a_free_machine_is_assigned_at_once(database: Database, client: httpx.AsyncClient) -> None:
    await database.vm("vm-1")

    answer = await client.post(LEASES, json=WANTED)

    lease = answer.json()
    assert answer.status_code == 201
    assert answer.headers["location"] == f"{LEASES}/{lease['id']}"
    assert (lease["status"], lease["hostname"], lease["email"]) == ("assigned", "vm-1", "ada@example.org")
    assert len(lease["token"]) == 43


async def test_without_a_free_machine_one_waits_in_order(client: httpx.AsyncClient) -> None:
    places = [
        (await client.post(LEASES, json=WANTED | {"email": f"p{n}@example.org"})).json()["position"] for n in range(3)
    ]

    assert places == [1, 2, 3]


async def test_the_token_opens_the_lease_again_and_is_stored_as_a_hash_only(
    database: Database, client: httpx.AsyncClient
) -> None:
    opened = await client.post(LEASES, json=WANTED)

    again = await client.get(opened.headers["location"], headers=bearer(opened))

    owner = await database.connect()
    stored = await owner.fetchval("SELECT token_sha256 FROM leases")
    assert again.status_code == 200
    assert again.json() == {name: value for name, value in opened.json().items() if name not in ("token", "notice")}
    assert stored == hashlib.sha256(opened.json()["token"].encode()).digest()


async def test_a_lease_tells_how_its_command_went(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED)
    await machine.claim()
    await machine.report("started")
    await machine.report("exited", 3, "no such thing\n")

    lease = (await client.get(opened.headers["location"], headers=bearer(opened))).json()

    assert (lease["status"], lease["exit_code"], lease["output"]) == ("active", 3, "no such thing\n")
    assert lease["expires_at"] > lease["created_at"]


async def test_a_failed_lease_says_what_to_do_next(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED | {"crd_command": DESKTOP_LINE})
    await machine.claim()
    await machine.report("failed", 1, "No such host\n", "command-failed")

    lease = (await client.get(opened.headers["location"], headers=bearer(opened))).json()

    assert (lease["status"], lease["failure"]) == ("failed", "command-failed")
    assert "ask again" in lease["failure_detail"]


async def test_a_lease_whose_code_was_refused_goes_on_with_a_fresh_line(
    database: Database, client: httpx.AsyncClient
) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED | {"crd_command": DESKTOP_LINE})
    line, mine = f"{opened.headers['location']}/line", bearer(opened)
    early = await client.put(line, headers=mine, json={"crd_command": DESKTOP_LINE})
    await machine.claim()
    await machine.report("failed", 1, "OAuth error\n", "code-used")

    asked = (await client.get(opened.headers["location"], headers=mine)).json()
    odd = await client.put(line, headers=mine, json={"crd_command": "echo hi"})
    others = await client.put(line, json={"crd_command": DESKTOP_LINE})
    given = await client.put(line, headers=mine, json={"crd_command": DESKTOP_LINE})

    assert (asked["status"], asked["needs_line"], asked["trouble"]) == ("assigned", True, "code-used")
    assert asked["kept_until"] and "Google refused" in asked["trouble_detail"]
    assert [answer.status_code for answer in (early, odd, others, given)] == [409, 422, 401, 200]
    assert not given.json()["needs_line"]
    await machine.claim()
    await machine.report("exited", 0, "Host started successfully.\n")
    assert (await client.get(opened.headers["location"], headers=mine)).json()["status"] == "active"


async def test_nothing_secret_of_a_desktop_line_is_shown(database: Database, client: httpx.AsyncClient) -> None:
    opened = await client.post(LEASES, json=WANTED | {"crd_command": f"{DESKTOP_LINE} --pin=86420975"})

    shown = (await client.get(opened.headers["location"], headers=bearer(opened))).text

    assert "4/0AVG" not in shown and "86420975" not in shown
    assert "--pin=***" in shown


async def test_a_desktop_line_without_a_pin_gets_one_that_only_the_token_tells(
    database: Database, client: httpx.AsyncClient
) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED | {"crd_command": DESKTOP_LINE})
    claimed = await machine.claim()
    assert opened.json()["pin"] is None
    await machine.report("exited", 0, "Host started successfully.\n")

    lease = (await client.get(opened.headers["location"], headers=bearer(opened))).json()

    assert lease["pin"] == pin_of(opened.json()["token"])
    assert lease["pin"] in claimed["secrets"]


async def test_a_pin_in_the_line_is_used_and_not_shown(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json=WANTED | {"crd_command": f"{DESKTOP_LINE} --pin=86420975"})
    claimed = await machine.claim()
    await machine.report("exited", 0, "Host started successfully.\n")

    lease = (await client.get(opened.headers["location"], headers=bearer(opened))).json()

    assert "86420975" in claimed["secrets"]
    assert lease["pin"] is None


async def test_a_lease_is_ended_and_its_machine_cleaned(database: Database, client: httpx.AsyncClient) -> None:
    await database.vm()
    opened = await client.post(LEASES, json=WANTED)

    ended = await client.delete(opened.headers["location"], headers=bearer(opened))
    again = await client.delete(opened.headers["location"], headers=bearer(opened))

    assert (ended.status_code, ended.json()["status"]) == (200, "cancelled")
    assert (again.status_code, again.json()["status"]) == (200, "cancelled")
    assert (await client.get("/api/v1/vms")).json()[0]["status"] == "cleaning"


async def test_without_a_token_one_is_asked_for(client: httpx.AsyncClient) -> None:
    opened = await client.post(LEASES, json=WANTED)

    for method in ("GET", "DELETE"):
        answer = await client.request(method, opened.headers["location"])
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_a_wrong_token_and_a_lease_that_is_not_there_look_the_same(client: httpx.AsyncClient) -> None:
    mine = await client.post(LEASES, json=WANTED)
    other = await client.post(LEASES, json=WANTED | {"email": "bob@example.org"})

    answers = [
        await client.request(method, path, headers=bearer(mine))
        for method in ("GET", "DELETE")
        for path in (other.headers["location"], f"{LEASES}/{uuid4()}")
    ]

    assert {answer.status_code for answer in answers} == {404}
    assert len({answer.text for answer in answers}) == 1


async def test_many_people_at_once_never_share_a_machine(database: Database, client: httpx.AsyncClient) -> None:
    for number in range(10):
        await database.vm(f"vm-{number}")

    wanted = [WANTED | {"email": f"p{number}@example.org"} for number in range(25)]
    answers = await asyncio.gather(*(client.post(LEASES, json=each) for each in wanted))

    hosts = [answer.json()["hostname"] for answer in answers if answer.json()["status"] == "assigned"]
    assert {answer.status_code for answer in answers} == {201}
    assert len(hosts) == len(set(hosts)) == 10


async def test_an_address_keeps_what_was_typed_but_its_domain_is_in_lower_case(client: httpx.AsyncClient) -> None:
    answer = await client.post(LEASES, json=WANTED | {"email": "  Zoë.Müller@Bücher.Example  "})

    assert answer.json()["email"] == "Zoë.Müller@bücher.example"


async def test_the_list_of_machines_tells_nothing_personal(database: Database, client: httpx.AsyncClient) -> None:
    await database.vm("vm-2")
    await database.vm("vm-10")
    await client.post(LEASES, json=WANTED)

    answer = await client.get("/api/v1/vms")

    assert [vm["hostname"] for vm in answer.json()] == ["vm-2", "vm-10"]
    assert {vm["status"] for vm in answer.json()} == {"in-use", "available"}
    assert "ada" not in answer.text and "echo" not in answer.text


async def test_a_machine_enrols_and_its_repeat_is_answered_the_same(
    database: Database, service: RunningService, client: httpx.AsyncClient
) -> None:
    owner = await database.connect()
    await owner.execute("SELECT invite_vm('vm-7', 'default', sha256('join-me'), 600)")
    wanted = {"token": "join-me", "verifier": f"SCRAM-SHA-256$4096:{'A' * 24}${'B' * 43}=:{'C' * 43}="}

    first = await client.post("/api/v1/enrolments", json=wanted)
    second = await client.post("/api/v1/enrolments", json=wanted)
    other = await client.post("/api/v1/enrolments", json=wanted | {"token": "unknown"})

    told = first.json()
    assert (first.status_code, second.status_code, other.status_code) == (201, 201, 403)
    assert (told["hostname"], told["transport"], told["database"]["tls"]) == ("vm-7", "direct", "loopback")
    assert told["database"]["database"] == database.name
    assert told["database"]["port"] == service.service.settings.database.port
    assert told["database"]["user"].startswith("lablink_vm_")
    assert second.json() == told


async def test_the_free_machines_are_counted(database: Database, client: httpx.AsyncClient) -> None:
    free = await client.get("/api/unassigned_vms_count")
    await database.vm()

    assert free.json() == {"count": 0}
    assert (await client.get("/api/unassigned_vms_count")).json() == {"count": 1}


async def test_a_desktop_is_reserved_first_and_its_line_comes_when_the_machine_is_there(
    database: Database, client: httpx.AsyncClient
) -> None:
    machine = await PlayedClient.of(await database.vm())
    opened = await client.post(LEASES, json={"email": "ada@example.org"})
    mine = bearer(opened)

    assert opened.status_code == 201
    assert (opened.json()["status"], opened.json()["needs_line"], opened.json()["crd_command"]) == (
        "assigned",
        True,
        None,
    )
    given = await client.put(f"{opened.headers['location']}/line", headers=mine, json={"crd_command": DESKTOP_LINE})
    assert given.status_code == 200
    await machine.claim()
    await machine.report("exited", 0, "Host started successfully.\n")
    assert (await client.get(opened.headers["location"], headers=mine)).json()["status"] == "active"
