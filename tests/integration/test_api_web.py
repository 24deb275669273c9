"""What holds for every answer, and what is refused before any route sees it."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import httpx
import pytest

from tests.support import LIMIT_SECONDS
from tests.support.database import Database
from tests.support.service import RunningService, ready, running_service, settings_for, streaming

pytestmark = pytest.mark.asyncio(loop_scope="module")

WANTED = {"email": "ada@example.org", "crd_command": "echo hi"}
LEASES = "/api/v1/leases"


def somebody() -> dict[str, str]:
    """A request of a person who asked for nothing yet."""
    return WANTED | {"email": f"{uuid4()}@example.org"}


ANSWERS = [
    ("GET", "/", 200),
    ("GET", "/docs", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/livez", 200),
    ("GET", "/metrics", 200),
    ("GET", "/api/v1/vms", 200),
    ("GET", "/static/lablink.css", 200),
    ("POST", "/api/request_vm", 422),
    ("POST", LEASES, 415),
    ("GET", "/nothing", 404),
    ("DELETE", "/", 405),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_every_answer_has_the_headers(api: httpx.AsyncClient, method: str, path: str, status: int) -> None:
    answer = await api.request(method, path)

    assert answer.status_code == status
    check_headers(answer)
    assert "strict-transport-security" not in answer.headers  # plain http: a browser would ignore it anyway


async def test_streams_and_refusals_have_the_headers_too(api: httpx.AsyncClient) -> None:
    async with streaming(api, "/stream") as stream:
        check_headers(stream.response)
    check_headers(await api.post(LEASES, content=b"x" * 100_000))
    check_headers(await api.post(LEASES, json=WANTED, headers={"Sec-Fetch-Site": "cross-site"}))


def check_headers(answer: httpx.Response) -> None:
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-opener-policy"] == "same-origin"
    assert answer.headers["referrer-policy"] == "same-origin"
    wanted = "no-cache" if str(answer.url.path).startswith("/static/") else "no-store"
    assert answer.headers.get_list("cache-control") == [wanted]
    assert "server" not in answer.headers


async def test_no_page_has_a_script_or_style_of_its_own(api: httpx.AsyncClient) -> None:
    for path in ("/", "/docs", "/nothing"):
        page = (await api.get(path, headers={"Accept": "text/html"})).text
        assert "<style" not in page and " style=" not in page and " onclick=" not in page
        assert page.count("<script") == page.count("<script src=")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{url}"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Origin": "{url}"}, 201),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://elsewhere.example"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": "http://127.0.0.1:1"}, 403),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "{url}.elsewhere.example"}, 403),
        ({"Sec-Fetch-Site": "same-origin", "Host": "rebound.example"}, 421),
        ({"Origin": "http://rebound.example", "Host": "rebound.example"}, 421),
    ],
)
async def test_what_another_site_sends_is_refused(
    api_service: RunningService, api: httpx.AsyncClient, headers: dict[str, str], status: int
) -> None:
    sent = {name: value.format(url=api_service.url) for name, value in headers.items()}

    assert (await api.post(LEASES, json=somebody(), headers=sent)).status_code == status


@pytest.mark.parametrize(
    ("path", "status"),
    [
        *((path, 421) for path in ("/", "/docs", "/api/v1/vms", "/stream", "/nothing")),
        *((path, 200) for path in ("/livez", "/readyz", "/metrics", "/static/lablink.css")),
    ],
)
async def test_a_name_that_is_not_ours_shows_nothing_but_how_the_service_is(
    api: httpx.AsyncClient, path: str, status: int
) -> None:
    assert (await api.get(path, headers={"Host": "rebound.example"})).status_code == status


@pytest.mark.parametrize("path", ["/", "/docs", "/openapi.json", "/livez", "/api/v1/vms", "/static/lablink.css"])
async def test_head_is_answered_as_get_without_a_body(api: httpx.AsyncClient, path: str) -> None:
    head, whole = await api.head(path), await api.get(path)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]


async def test_a_stream_has_no_head(api: httpx.AsyncClient) -> None:
    assert (await api.head("/stream")).status_code == 405


async def test_behind_a_proxy_with_tls_everything_is_of_https(database: Database, tmp_path: Path) -> None:
    settings = settings_for(database, tmp_path, "server.public_url='https://lab.example.org'")
    async with running_service(settings) as running, running.client() as client:
        await ready(running.service)
        browser = {"Host": "lab.example.org", "Origin": "https://lab.example.org"}

        answer = await client.post("/api/request_vm", data=WANTED, headers=browser)
        page = await client.get(
            answer.headers["location"], headers={"Host": "lab.example.org", "Cookie": answer.headers["set-cookie"]}
        )

    cookie = answer.headers["set-cookie"]
    assert answer.status_code == 303
    assert cookie.startswith("__Host-lablink=")
    assert "Secure" in cookie and "HttpOnly" in cookie and "SameSite=lax" in cookie and "Domain" not in cookie
    assert answer.headers["strict-transport-security"].startswith("max-age=63072000")
    assert 'value="https://lab.example.org/leases/' in page.text


async def test_where_only_some_domains_may_ask_form_and_api_refuse_the_others(
    database: Database, tmp_path: Path
) -> None:
    settings = settings_for(database, tmp_path, "access.domains=[lab.example.net]")
    async with running_service(settings) as running, running.client() as client:
        await ready(running.service)

        answer = await client.post(LEASES, json=WANTED)
        form = await client.post("/api/request_vm", data=WANTED, headers={"Accept": "text/html"})
        accepted = await client.post(LEASES, json=WANTED | {"email": "ada@lab.example.net"})
        page = await client.get("/")

    assert (answer.status_code, form.status_code, accepted.status_code) == (422, 422, 201)
    assert "lent to addresses at lab.example.net" in answer.text and "lent to addresses at lab.example.net" in form.text
    assert "it must be at lab.example.net" in page.text


async def test_a_body_over_the_limit_is_refused_however_it_comes(api: httpx.AsyncClient) -> None:
    async def in_pieces() -> AsyncIterator[bytes]:
        for _ in range(350):
            yield b"x" * 1024

    told = await api.post(LEASES, content=b"x" * 350_000)
    untold = await api.post(LEASES, content=in_pieces())
    form = await api.post("/api/request_vm", data=WANTED | {"crd_command": "echo " + "x" * 350_000})

    assert [answer.status_code for answer in (told, untold, form)] == [413, 413, 413]
    assert told.headers["content-type"] == "application/problem+json"


async def test_a_body_at_the_limit_arrives_whole(api: httpx.AsyncClient) -> None:
    line = "echo " + "x" * 90_000

    answer = await api.post(LEASES, json=somebody() | {"crd_command": line})

    assert answer.status_code == 201
    assert answer.json()["crd_command"] == line


async def test_a_huge_body_that_is_announced_is_not_even_read(api_service: RunningService) -> None:
    host, port = api_service.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    announced = f"POST {LEASES} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 99999999999\r\n\r\n"
    writer.write(announced.encode())

    async with asyncio.timeout(LIMIT_SECONDS):
        status = await reader.readline()

    assert b" 413 " in status
    writer.close()
    await writer.wait_closed()


async def test_the_documentation_asks_nobody_else_for_anything(api: httpx.AsyncClient) -> None:
    page = (await api.get("/docs")).text

    assert "http://" not in page and "https://" not in page
    assert (await api.get("/static/vendor/swagger-ui/swagger-ui-bundle.js")).status_code == 200
