"""Whatever is sent, the answer is a clear 4xx as a problem document that repeats nothing secret."""

import json
from typing import Any

import httpx
import pytest

from allocator.app import status_of
from allocator.errors import CommandNotAccepted
from allocator.requesting import VmRequest
from client.command import JOB_BYTES, JobCommand
from tests.support.service import DESKTOP_LINE, RunningService

pytestmark = pytest.mark.asyncio(loop_scope="module")

WANTED = {"email": "ada@example.org", "crd_command": "echo hi"}
LEASES = "/api/v1/leases"
JSON = {"Content-Type": "application/json"}


def check_problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The problem document of an answer, which must be whole."""
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json()
    assert problem["status"] == status
    assert problem["type"] and problem["title"] and problem["detail"]
    return problem


@pytest.mark.parametrize(
    "email",
    [
        "",
        "nobody",
        "@example.org",
        "ada@",
        "ada@@example.org",
        "ada@example",
        "ada@.org",
        "ada@example..org",
        ".ada@example.org",
        "ada bell@example.org",
        "ada\u0000@example.org",
        "ada\n@example.org",
        "ada\u200b@example.org",
        "ada\u202e@example.org",
        "ada\ud800@example.org",
        "Ada <ada@example.org>",
        "ada@example.org,bob@example.org",
        "a" * 65 + "@example.org",
        "a@" + "b" * 250 + ".org",
        "ı" * 250 + "@İİİİ.org",
    ],
)
async def test_an_address_that_is_none_is_refused(api: httpx.AsyncClient, email: str) -> None:
    body = json.dumps(WANTED | {"email": email})

    problem = check_problem(await api.post(LEASES, content=body, headers=JSON), 422)

    assert [error["field"] for error in problem["errors"]] == ["email"]


@pytest.mark.parametrize("email", ["ada+lab@sub.example.co.uk", "o'brien@example.org", "用户@例子.公司"])
async def test_addresses_of_all_the_world_are_accepted(api: httpx.AsyncClient, email: str) -> None:
    assert (await api.post(LEASES, json=WANTED | {"email": email})).status_code == 201


@pytest.mark.parametrize(
    "line", ["rm -rf /", "echo hi; rm -rf /", "echo $(id)", "start-host", "echo \u0000", "echo \ud800", "/bin/echo hi"]
)
async def test_a_command_that_the_pool_does_not_run_is_refused(api: httpx.AsyncClient, line: str) -> None:
    body = json.dumps(WANTED | {"crd_command": line})

    problem = check_problem(await api.post(LEASES, content=body, headers=JSON), 422)

    assert [error["field"] for error in problem["errors"]] == ["crd_command"]


async def test_every_mistake_is_told_at_once(api: httpx.AsyncClient) -> None:
    problem = check_problem(await api.post(LEASES, json={"email": "ada@home", "crd_command": "rm -rf /"}), 422)

    assert [error["field"] for error in problem["errors"]] == ["email", "crd_command"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 422),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[]", 422),
        (b"null", 422),
        (b'"text"', 422),
        (b"{}", 422),
        (b'{"email": 1, "crd_command": []}', 422),
        (b'{"email": "ada@example.org", "crd_command": "echo hi", "admin": true}', 422),
        (b'{"email": "ada@example.org", "crd_command": "echo hi", "pool": "nowhere"}', 422),
        (b'{"email": "ada@example.org", "crd_command": "echo hi", "pool": "\\u0000"}', 422),
        (b"[" * 60_000, 400),
        (b'{"email": ' + b"9" * 5000 + b"}", 400),
    ],
)
async def test_a_body_that_is_not_a_request_is_refused(api: httpx.AsyncClient, body: bytes, status: int) -> None:
    problem = check_problem(await api.post(LEASES, content=body, headers=JSON), status)

    assert (problem["type"] == "urn:lablink:invalid-json") == (status == 400)


async def test_a_form_that_cannot_be_read_is_not_called_json(api: httpx.AsyncClient) -> None:
    headers = {"Content-Type": "multipart/form-data", "Accept": "application/json"}

    problem = check_problem(await api.post("/api/request_vm", content=b"--x", headers=headers), 400)

    assert problem["detail"] == "Missing boundary in multipart."


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        ({}, "email is missing."),
        ({"admin": True}, "admin is no field of this request: leave it out."),
        ({"email": 1}, "email must be text."),
        ({"email": "a" * 300}, "email may have at most 254 characters."),
        ({"crd_command": ""}, "crd_command is missing or too short."),
        ({"pool": "Über"}, "pool is not written as it must be: see /docs."),
        ([], "The body must be a JSON object, with its fields in curly brackets."),
    ],
)
async def test_what_is_wrong_with_a_field_is_said_in_a_sentence(api: httpx.AsyncClient, body: Any, detail: str) -> None:
    sent = WANTED | body if body else body

    assert check_problem(await api.post(LEASES, json=sent), 422)["detail"] == detail


async def test_a_command_as_long_as_is_promised_is_accepted_however_it_is_escaped(api: httpx.AsyncClient) -> None:
    line = "echo " + "%" * (JOB_BYTES - 5)

    form = await api.post("/api/request_vm", data=WANTED | {"email": "long@example.org", "crd_command": line})
    too_long = await api.post("/api/request_vm", data=WANTED | {"crd_command": line.replace("%", "x") + "x"})
    far_too_long = await api.post("/api/request_vm", data=WANTED | {"crd_command": line * 2})

    assert (form.status_code, too_long.status_code, far_too_long.status_code) == (303, 422, 413)
    assert 'value="ada@example.org"' in too_long.text and "at most 100,000 bytes" in too_long.text
    assert 'href="/"' in far_too_long.text and "Shorten the command" in far_too_long.text


@pytest.mark.parametrize("sent", [None, "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "x"])
async def test_a_body_of_another_type_is_refused(api: httpx.AsyncClient, sent: str | None) -> None:
    headers = {"Content-Type": sent} if sent else {}

    check_problem(await api.post(LEASES, content=json.dumps(WANTED).encode(), headers=headers), 415)


@pytest.mark.parametrize("key", [b"", b"x" * 256, "caf\u00e9".encode(), b"tab\there"])
async def test_an_idempotency_key_must_be_one(api: httpx.AsyncClient, key: bytes) -> None:
    answer = await api.post(LEASES, json=WANTED, headers={b"Idempotency-Key": key})

    check_problem(answer, 422)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api/v1/nothing", 404),
        ("GET", "/api/v1/leases/1", 404),
        ("GET", "/api/v1/vms/", 404),
        ("GET", "/nothing", 404),
        ("GET", "/docs/", 404),
        ("GET", "/static/nothing.css", 404),
        ("GET", "/static/../store.py", 404),
        ("GET", "/static/%2e%2e/store.py", 404),
        ("GET", "/leases/%00", 404),
        ("GET", LEASES, 405),
        ("PUT", LEASES, 405),
        ("PATCH", "/api/v1/vms", 405),
        ("TRACE", "/", 405),
        ("POST", "/livez", 405),
    ],
)
async def test_every_error_is_a_problem_document(api: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await api.request(method, path)

    check_problem(answer, status)
    assert ("allow" in answer.headers) == (status == 405)
    assert "location" not in answer.headers


async def test_people_get_a_page_instead(api: httpx.AsyncClient) -> None:
    answer = await api.get("/nothing", headers={"Accept": "text/html,*/*;q=0.8"})

    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "Check the address" in answer.text


async def test_nothing_that_was_sent_comes_back_in_a_refusal(api: httpx.AsyncClient) -> None:
    line = DESKTOP_LINE.replace("--name", "--unknown-switch=1 --pin=86420975 --name")

    answers = [
        await api.post(LEASES, json=WANTED | {"crd_command": line}),
        await api.post(LEASES, json={"email": ["ada@secret.example"], "crd_command": line}),
        await api.post("/api/request_vm", data=WANTED | {"crd_command": line}),
    ]

    assert [answer.status_code for answer in answers] == [422, 422, 422]
    for answer in answers:
        assert "4/0AVG" not in answer.text and "86420975" not in answer.text and "secret.example" not in answer.text


async def test_a_pool_that_changed_while_a_command_was_checked_refuses_the_command(
    api_service: RunningService,
) -> None:
    command = JobCommand(("rm",))

    with pytest.raises(CommandNotAccepted) as refusal:
        await api_service.service.store.request_vm(
            VmRequest("ada@example.org", command, command, "token", b"salt", None, None, "default")
        )

    assert status_of(refusal.value) == 422
    assert list(refusal.value.fields) == ["crd_command"]
