"""The form as it is sent: what it offers, where it leads, and what it says of what is wrong."""

import re
from pathlib import Path

import asyncpg
import httpx

from tests.integration.test_pages import DESKTOP, FORM, HTML, ask, heading
from tests.support.database import Database
from tests.support.service import RunningService, lease_of, ready, running_service, settings_for


async def test_the_form_says_what_the_pool_takes_and_how_many_machines_are_free(
    database: Database, client: httpx.AsyncClient
) -> None:
    await database.vm()

    page = (await client.get("/")).text

    assert "1 of 1 machines is free" in page
    assert "https://remotedesktop.google.com/headless" in page
    assert all(f"<code>{program}</code>" in page for program in ("echo", "sleep", "python3"))


async def test_a_pool_that_is_paused_is_not_said_to_have_no_machines(
    database: Database, client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    await database.vm()
    await owner.execute("SELECT pause_pool('default', true)")

    pages = [(await client.get(place)).text for place in ("/", "/status")]

    assert all("an admin has paused the pool" in page and "no machines" not in page for page in pages)


async def test_asking_leads_to_the_lease_and_the_browser_remembers_it(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/request_vm", data=FORM)

    cookie = answer.headers["set-cookie"]
    page = await client.get(answer.headers["location"])
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/leases/{lease_of(answer)}"
    assert cookie.startswith("lablink=") and "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert "Secure" not in cookie  # plain http, on this machine only
    assert heading(page) == "You are next in line"


async def test_a_program_that_asks_for_json_gets_the_lease(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/request_vm", data=FORM, headers={"Accept": "application/json"})
    again = await client.get(
        f"/api/v1/leases/{answer.json()['id']}", headers={"Authorization": f"Bearer {answer.json()['token']}"}
    )
    refused = await client.post("/api/request_vm", data={}, headers={"Accept": "application/json"})

    assert (answer.status_code, again.status_code) == (201, 200)
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


async def test_sending_the_form_twice_asks_once(client: httpx.AsyncClient) -> None:
    page = (await client.get("/")).text
    key = re.search(r'name="key" value="([^"]+)"', page)
    assert key

    assert await ask(client, key=key[1]) == await ask(client, key=key[1])


async def test_a_form_that_one_went_back_to_and_changed_asks_anew(client: httpx.AsyncClient) -> None:
    first = await ask(client, key="the-form-of-yesterday")
    await client.post(f"{first}/end")

    second = await ask(client, key="the-form-of-yesterday", crd_command="echo again")

    assert second != first


async def test_asking_again_in_the_same_browser_leads_to_what_one_has_and_says_that_nothing_new_was_started(
    client: httpx.AsyncClient,
) -> None:
    lease = await ask(client)

    again = await ask(client, crd_command="echo other")

    assert again.partition("?")[0] == lease
    assert "was not started" in (await client.get(again)).text
    assert "was not started" not in (await client.get(lease)).text
    assert "You already have a place in line" in (await client.get("/")).text
    await client.post(f"{lease}/end")
    assert "was not started" not in (await client.get(again)).text


async def test_the_same_address_in_another_browser_is_told_what_to_do(
    service: RunningService, client: httpx.AsyncClient
) -> None:
    mine = await ask(client)

    async with service.client() as stranger:
        answer = await stranger.post("/api/request_vm", data=FORM, headers=HTML)

    assert answer.status_code == 409
    assert "with the link that you kept" in answer.text
    assert mine not in answer.text


async def test_a_refused_form_keeps_what_was_typed_and_marks_what_is_wrong(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/request_vm", data={"email": "<ada@home>", "crd_command": "rm -rf '<b>'"})

    assert answer.status_code == 422
    assert 'value="&lt;ada@home&gt;"' in answer.text
    assert "rm -rf &#39;&lt;b&gt;&#39;" in answer.text
    assert answer.text.count('aria-invalid="true"') == 2
    assert 'aria-describedby="email-wrong email-help"' in answer.text
    assert 'id="email-wrong"' in answer.text and 'id="command-wrong"' in answer.text


async def test_the_address_of_a_refused_form_leads_to_the_form_and_tells_programs_that_it_takes_post(
    client: httpx.AsyncClient,
) -> None:
    refused = await client.post("/api/request_vm", data=FORM | {"email": "nobody"}, headers=HTML)
    again = await client.get(refused.url, headers=HTML)
    program = await client.get(refused.url, headers={"Accept": "application/json"})
    other = await client.delete(refused.url, headers=HTML)

    assert (again.status_code, again.headers["location"]) == (303, "/")
    assert (program.status_code, program.headers["content-type"]) == (405, "application/problem+json")
    assert (program.headers["allow"], other.status_code, other.headers["allow"]) == ("POST", 405, "POST")


async def test_a_refused_form_does_not_send_a_code_back(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api/request_vm", data=DESKTOP | {"email": "nobody"})

    assert answer.status_code == 422
    assert "4/0AVG" not in answer.text
    assert "Paste the line again" in answer.text


async def test_a_usual_pool_of_another_name_is_the_only_one_while_default_is_empty(
    database: Database, tmp_path: Path
) -> None:
    async with running_service(settings_for(database, tmp_path, "pool.name=lab")) as running:
        await ready(running.service)
        async with running.client() as client:
            alone = await client.get("/")
            await database.vm("vm-1")
            chosen = await client.get("/")

    assert 'type="radio"' not in alone.text
    assert 'value="lab" checked' in chosen.text and 'value="default"' in chosen.text


async def test_a_kind_of_machine_that_has_no_name_is_refused_before_anybody_is_asked(client: httpx.AsyncClient) -> None:
    for pool in ("\0", "no pool", "Default"):
        answer = await client.post("/api/request_vm", data=FORM | {"pool": pool}, headers=HTML)
        assert (answer.status_code, "pool is not written as it must be" in answer.text) == (422, True)


async def test_a_code_that_cannot_be_one_is_refused_before_anybody_looks_for_it(client: httpx.AsyncClient) -> None:
    parts = {name: (None, value.encode()) for name, value in (FORM | {"join_code": "\\ud800"}).items()}
    odd = httpx.Request("POST", "http://x", files=parts)
    headers = HTML | {"Content-Type": f"{odd.headers['content-type']}; charset=unicode_escape"}

    halves = await client.post("/api/request_vm", content=odd.read(), headers=headers)
    long = await client.post("/api/request_vm", data=FORM | {"join_code": "x" * 201}, headers=HTML)

    assert (halves.status_code, long.status_code) == (422, 422)
    assert "not valid Unicode" in halves.text


async def test_the_form_and_the_notice_say_how_many_machines_a_person_may_have(
    client: httpx.AsyncClient, owner: asyncpg.Connection
) -> None:
    assert "One machine a person at a time." in (await client.get("/")).text
    await owner.execute("UPDATE pools SET per_person = 2")
    assert "Up to 2 machines a person at a time." in (await client.get("/")).text
    await ask(client)
    newest = await ask(client)
    again = await client.post("/api/request_vm", data=FORM)
    answer = await client.post("/api/request_vm", data=FORM, headers={"Accept": "application/json"})

    said = "one person has at most 2 in this pool at a time: what you sent just now was not started."
    assert again.headers["location"].startswith(newest)
    assert said in (await client.get(again.headers["location"])).text
    assert said in answer.json()["notice"] and "end one of them first" in answer.json()["notice"]
    await owner.execute("INSERT INTO pools (name) VALUES ('gpu')")
    assert "One machine a person at a time, and besides up to 2 of default." in (await client.get("/")).text
