"""What the service writes and counts: every change of state, and nothing of anybody's."""

import logging
from dataclasses import replace

import httpx
import pytest

from tests.support.database import Database
from tests.support.service import DESKTOP_LINE, PlayedClient, RunningService

WANTED = {"email": "ada.lovelace@example.org", "crd_command": f"{DESKTOP_LINE} --pin=86420975"}
LEASES = "/api/v1/leases"
PERSONAL = ("ada.lovelace", "4/0AVG", "86420975", "start-host")


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    """The events that the service logged."""
    return [record.msg["event"] for record in caplog.records if isinstance(record.msg, dict)]


async def test_each_change_of_state_is_one_line_without_anything_personal(
    database: Database, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await database.vm()
    opened = await client.post(LEASES, json=WANTED)
    token = opened.json()["token"]
    await client.post(LEASES, json=WANTED)
    await client.post(LEASES, json=WANTED | {"crd_command": "rm -rf /"})
    await client.delete(opened.headers["location"], headers={"Authorization": f"Bearer {token}"})

    assert [event for event in events(caplog) if event.startswith("lease.")] == ["lease.opened", "lease.ended"]
    assert not any(secret in caplog.text for secret in (*PERSONAL, token))


async def test_what_nobody_expected_of_the_database_is_logged_without_the_row_it_quotes(
    database: Database, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    owner = await database.connect()
    await owner.execute("ALTER TABLE leases ADD CONSTRAINT odd CHECK (email NOT LIKE 'ada%')")

    answer = await client.post(LEASES, json=WANTED)

    assert answer.status_code == 500
    assert answer.json()["detail"].startswith("Something went wrong on our side")
    assert "SQLSTATE 23514 CheckViolationError" in caplog.text
    assert not any(secret in caplog.text + answer.text for secret in PERSONAL)


async def test_a_fault_of_ours_is_logged_without_what_was_sent(
    service: RunningService, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    broken = replace(service.service, cookie=None)  # type: ignore[arg-type]
    service.server.config.app.state.service = broken  # type: ignore[union-attr]

    answer = await client.post(LEASES, json=WANTED)
    page = await client.get("/", headers={"Accept": "text/html"})
    service.server.config.app.state.service = service.service  # type: ignore[union-attr]

    assert (answer.status_code, page.status_code) == (500, 500)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "request.failed" in events(caplog)
    assert not any(secret in caplog.text + answer.text + page.text for secret in PERSONAL)


async def test_the_figures_are_right(database: Database, client: httpx.AsyncClient) -> None:
    machine = await PlayedClient.of(await database.vm())
    await client.post(LEASES, json=WANTED)
    await client.post(LEASES, json=WANTED)
    await client.post(LEASES, json=WANTED | {"email": "bob@example.org"})
    await machine.claim()
    owner = await database.connect()
    await owner.execute(
        "INSERT INTO foretold SELECT id, created_at, clock(), clock() FROM leases WHERE status = 'queued'"
        " ON CONFLICT (lease_id) DO UPDATE SET sure = excluded.sure"
    )
    await machine.report("failed", 1, "", "command-failed")

    answer = await client.get("/metrics")

    assert answer.headers["content-type"].startswith("text/plain")
    for line in (
        "lablink_database_up 1.0",
        'lablink_vms{status="cleaning"} 1.0',
        'lablink_live_leases{status="queued"} 1.0',
        'lablink_live_leases{status="claimed"} 0.0',
        'lablink_requests_total{outcome="created"} 2.0',
        'lablink_requests_total{outcome="live"} 1.0',
        "lablink_request_seconds_count 3.0",
        'lablink_waits_held{odds="sure",pool="default"} 0.0',
        'lablink_pool_waiting{pool="default"} 1.0',
    ):
        assert line in answer.text
    assert 'status="failed"} 1.0' not in answer.text
    assert not any(secret in answer.text for secret in PERSONAL)
