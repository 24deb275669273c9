"""When a machine looks, how long it waits, and over which connections it speaks."""

import asyncio
import socket
import ssl
from dataclasses import replace
from statistics import mean

import pytest

from client.direct import DirectTransport
from client.network import InsecureAddress, keep_alive, tls_of
from client.protocol import concerns
from client.settings import DatabaseLogin
from client.transport import Backoff, Pace
from tests.unit.conftest import Clock

HERE = DatabaseLogin("127.0.0.1", 5432, "lablink_db", "lablink_vm_1", "loopback", password="secret")


def hint(vm_id: int) -> str:
    return f'[{{"id": {vm_id}, "hostname": "vm", "status": "in-use", "epoch": 3}}]'


def test_a_hint_at_this_machine_is_a_reason_to_look() -> None:
    assert concerns(hint(7), 7)


def test_a_hint_at_another_machine_is_none() -> None:
    assert not concerns(hint(8), 7)


@pytest.mark.parametrize("payload", ["", "x", "[]", "null", "[{}]", "1", '"a"', "[" * 9000, '[{"id":1e999}]', "{"])
def test_what_cannot_be_read_is_a_reason_to_look(payload: str) -> None:
    assert concerns(payload, 7)


def test_a_machine_that_does_not_know_its_number_looks_at_every_hint() -> None:
    assert concerns(hint(8), None)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "/var/run/postgresql"])
def test_on_this_machine_no_tls_is_needed(host: str) -> None:
    assert tls_of(replace(HERE, host=host)) == "disable"


@pytest.mark.parametrize("host", ["10.0.0.1", "db.example.org", "::2", "127.0.0.1.example.org", "0.0.0.0"])
def test_to_another_machine_anything_but_verify_full_is_refused(host: str) -> None:
    with pytest.raises(InsecureAddress, match="verify-full"):
        DirectTransport(replace(HERE, host=host))


def test_verify_full_checks_the_certificate_and_the_name_in_it() -> None:
    context = tls_of(replace(HERE, host="db.example.org", tls="verify-full"))
    assert isinstance(context, ssl.SSLContext)
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.check_hostname


def test_a_password_is_not_shown_with_its_address() -> None:
    assert "secret" not in repr(HERE)


def test_a_connection_is_probed_by_the_kernel() -> None:
    with socket.socket() as connection:
        keep_alive(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_waits_grow_to_their_ceiling_and_begin_anew() -> None:
    backoff = Backoff(first=0.5, ceiling=30.0)
    waits = [backoff.delay() for _ in range(60)]
    assert waits[0] <= 0.5
    assert max(waits) <= 30.0
    assert max(waits) > 10.0
    backoff.reset()
    assert backoff.delay() <= 0.5


def test_a_fleet_is_spread_over_the_whole_wait() -> None:
    first_waits = [Backoff().delay() for _ in range(500)]
    assert 0.2 < mean(first_waits) < 0.3


async def test_the_first_hints_pass_at_once_and_a_flood_passes_as_one(clock: Clock) -> None:
    event = asyncio.Event()
    pace = Pace(event, rate=20.0, burst=3)
    for _ in range(3):
        clock.go_on(0.001)  # more than sums are wrong by
        pace.hint(1)
        assert event.is_set()
        event.clear()
    for _ in range(1000):
        pace.hint(1)
    assert not event.is_set()
    assert not pace.would_wake(1)
    clock.go_on(0.1)
    await event.wait()


async def test_a_flood_delays_no_hint_of_another_sender() -> None:
    event = asyncio.Event()
    pace = Pace(event, rate=0.001, burst=1)
    pace.hint(1)
    event.clear()
    pace.hint(1)
    assert not event.is_set()
    pace.hint(2)
    assert event.is_set()
    pace.cancel()


async def test_a_hint_while_one_is_arranged_changes_nothing() -> None:
    event = asyncio.Event()
    pace = Pace(event, rate=0.001, burst=1)
    pace.hint(1)
    event.clear()
    pace.hint(1)
    assert not pace.would_wake(1)
    pace.hint(1)
    assert not event.is_set()
    pace.cancel()
    assert pace.would_wake(1)
