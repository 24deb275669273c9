"""Machines of compose.yaml are moved to the hub and back, as docs/containers.md says it."""

from dataclasses import replace

import pytest

from tests.images.engine import Failed, run
from tests.images.stack import Stack
from tests.support.up import until

pytestmark = pytest.mark.timeout(1200)

KNOCK = "import socket; socket.create_connection(('postgres', 5432), 5)"


def test_machines_are_moved_to_the_hub_while_one_is_lent_and_have_no_way_to_postgresql_then(stack: Stack) -> None:
    hub = replace(stack, transport="hub")
    run("docker", "exec", stack.container("vm-1"), "python", "-c", KNOCK)
    try:
        with stack.lending("ada@example.org") as lease:
            hub.compose("up", "--detach", "allocator")
            until(lambda: hub.transports() == {"hub"}, "machines that speak over the hub", 300)
            assert lease()["status"] == "active"

        hub.compose("up", "--detach")
        until(hub.is_ready, "all machines")
        with pytest.raises(Failed, match="gaierror"):
            run("docker", "exec", hub.container("vm-1"), "python", "-c", KNOCK)
        assert hub.serve("bob@example.org")["exit_code"] == 0
    finally:
        stack.compose("up", "--detach")
    until(lambda: stack.is_ready() and stack.transports() == {"direct"}, "machines that speak to PostgreSQL", 300)
