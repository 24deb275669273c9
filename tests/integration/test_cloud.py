"""AWS is asked with patience, and with an end to it."""

import asyncio
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from allocator.fleet.adoption import remove
from allocator.fleet.cloud import Cloud, Patience
from allocator.fleet.description import Fleet
from allocator.fleet.invite import invite
from allocator.fleet.refusals import CloudRefused
from tests.support import LIMIT_SECONDS
from tests.support.cloud import KEYS, REGION
from tests.support.database import Database

HASTY = Patience(attempts=1, each=0.5, in_all=0.1)


NOBODY = b"<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>"


@pytest.fixture
def fleet() -> Fleet:
    once = Patience(attempts=1, each=60, in_all=60)
    return Fleet("lab", "t3.large", REGION, {}, {}, Path(), Path(), Cloud(REGION, once))


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """AWS takes every connection and answers none."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        for name, value in (KEYS | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.getsockname()[1]}"}).items():
            monkeypatch.setenv(name, value)
        yield server


async def test_an_answer_that_does_not_come_is_waited_for_as_long_as_was_said(silent: socket.socket) -> None:
    with pytest.raises(CloudRefused, match=r"no answer within 0\.1 s") as refused:
        await Cloud(REGION, HASTY).instance("i-0123456789abcdef0")
    assert refused.value.code == "Timeout"


async def test_whoever_waits_for_a_turn_waits_no_longer_than_that_either(silent: socket.socket) -> None:
    cloud = Cloud(REGION, HASTY)
    answers = await asyncio.gather(*(cloud.role(f"vm-{n}") for n in range(40)), return_exceptions=True)
    assert {type(answer) for answer in answers} == {CloudRefused}


async def test_nobody_else_waits_while_aws_does_not_answer(silent: socket.socket) -> None:
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    async with asyncio.timeout(LIMIT_SECONDS):
        asking = asyncio.create_task(Cloud(REGION, Patience(attempts=1, each=60, in_all=60)).role("vm-patient"))
        with await asked_for(b"vm-patient", silent):
            assert await asyncio.to_thread(lambda: "answered") == "answered"
        with pytest.raises(CloudRefused):
            await asking


async def test_an_invitation_that_is_given_up_ends_when_its_tokens_are_where_they_go(
    silent: socket.socket, fleet: Fleet, database: Database
) -> None:
    owner = await database.connect()
    async with asyncio.timeout(LIMIT_SECONDS):
        inviting = asyncio.create_task(invite(fleet, owner, {"vm-1": "default"}, told_to_nobody))
        with await asked_for(b"lab/join/vm-1", silent) as connection:
            inviting.cancel()
            for _ in range(10):
                await asyncio.sleep(0)
            assert not inviting.done()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
            await asyncio.wait([inviting])

    assert inviting.cancelled()


async def test_a_removal_that_is_given_up_takes_nothing_away_from_the_next_run(
    silent: socket.socket, fleet: Fleet
) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        removing = asyncio.create_task(remove(fleet, {}, ["vm-1"]))
        with await asked_for(b"DescribeInstances", silent) as connection:
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(NOBODY), NOBODY))
            with await asked_for(b"lab-vm-vm-1", silent):
                removing.cancel()
                for _ in range(10):
                    await asyncio.sleep(0)
                assert not removing.done()
            await asyncio.wait([removing])

    assert removing.cancelled()


async def test_a_change_that_is_given_up_does_not_come_later(silent: socket.socket) -> None:
    cloud = Cloud(REGION, Patience(attempts=1, each=60, in_all=1))  # in which a thread has begun to ask
    async with asyncio.timeout(LIMIT_SECONDS):
        putting = asyncio.create_task(cloud.put_secret("lab/join/late", "token"))
        with await asked_for(b"lab/join/late", silent) as connection:
            with pytest.raises(CloudRefused, match="no answer within"):
                await cloud.role("vm-1")  # whose limit is over after that of the secret
            assert not putting.done()
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        with pytest.raises(CloudRefused, match="no answer within"):
            await putting


async def told_to_nobody(_done: int, _total: int | None, _what: str) -> None:
    pass


async def asked_for(what: bytes, server: socket.socket) -> socket.socket:
    """The connection over which somebody asks for that; what threads of earlier tests ask is passed over."""
    server.setblocking(False)
    loop = asyncio.get_running_loop()
    while True:
        connection, _ = await loop.sock_accept(server)
        heard = piece = await loop.sock_recv(connection, 65_536)
        while piece and what not in heard:
            heard += (piece := await loop.sock_recv(connection, 65_536))
        if piece:
            return connection
        connection.close()
