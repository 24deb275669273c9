"""An X server is believed nothing, and nothing of its machine's is opened before it is known whose it is."""

import ctypes
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import pytest

from client.x11 import SOCKETS, NoAnswer, idle_seconds


@contextmanager
def answering(display: int, answer: bytes) -> Iterator[None]:
    """Somebody who says that to whoever comes to this display."""
    os.makedirs(SOCKETS, mode=0o1777, exist_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{SOCKETS}/X{display}")
        listener.listen()

        def serve() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.sendall(answer)
                    connection.shutdown(socket.SHUT_WR)
                    while connection.recv(4096):
                        pass

        thread = Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)  # it may not have been spoken to
            thread.join()


@contextmanager
def unopened(path: Path) -> Iterator[None]:
    """Fails when somebody opens the file meanwhile."""
    libc, in_open = ctypes.CDLL(None), 0x20
    told = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(told, os.fsencode(path), in_open) > 0
    try:
        yield
        with pytest.raises(BlockingIOError):
            os.read(told, 4096)
    finally:
        os.close(told)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        bytes(8),
        bytes([0, 3]) + bytes(4) + bytes([1, 0]) + b"no!!",
        bytes([1]) + bytes(5) + bytes([1, 0]) + bytes(4),
        bytes([1]) + bytes(5) + b"\xff\xff" + bytes(9),
        bytes([1]) + bytes(5) + bytes([20, 0]) + b"\xff" * 80,
    ],
)
def test_an_x_server_that_makes_no_sense_tells_nothing(display: int, answer: bytes) -> None:
    with answering(display, answer), pytest.raises(NoAnswer):
        idle_seconds(display, Path("/nowhere"), os.geteuid())


def test_somebody_elses_x_server_is_told_nothing(display: int) -> None:
    with answering(display, b""), pytest.raises(NoAnswer, match="somebody else's"):
        idle_seconds(display, Path("/nowhere"), os.geteuid() + 1)


def test_a_socket_that_was_given_away_is_still_somebody_elses(display: int) -> None:
    with answering(display, b""):
        if os.geteuid() == 0:
            os.chown(f"{SOCKETS}/X{display}", 1, 1)
        with pytest.raises(NoAnswer, match="somebody else's"):
            idle_seconds(display, Path("/nowhere"), 1)


def test_what_is_no_file_of_cookies_is_not_even_opened(display: int, tmp_path: Path) -> None:
    named = tmp_path / "watchdog"
    os.mkfifo(named)
    with answering(display, b""), unopened(named), pytest.raises(NoAnswer):
        idle_seconds(display, named, os.geteuid())


@pytest.mark.parametrize("cookies", [b"\1", b"\1\0\0\xff", bytes(range(200))])
def test_cookies_that_are_none_let_nobody_in(display: int, tmp_path: Path, cookies: bytes) -> None:
    file = tmp_path / ".Xauthority"
    file.write_bytes(cookies)
    with answering(display, b""), pytest.raises(NoAnswer):
        idle_seconds(display, file, os.geteuid())
