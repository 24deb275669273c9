"""The socket that `lablink serve` accepts on."""

import socket

from allocator.cli.serve import listener_of
from allocator.config import load_settings


def test_answers_do_not_wait_for_an_acknowledgement_of_their_first_part() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with (
        listener_of(load_settings([f"server.port={port}"]).server, None) as listener,
        socket.create_connection(listener.getsockname()),
        listener.accept()[0] as accepted,
    ):
        assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
