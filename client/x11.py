"""Since when nobody has moved the mouse or typed on an X server: what its extension MIT-SCREEN-SAVER tells.

Three requests of the X protocol, so that a machine needs no library for it. The server belongs to whoever has the
machine and may answer anything: all that is read has a length and a time limit, and the cookie goes to nobody else's.
Its files may be anything too (a watchdog's device is set off by opening it), so each is looked at before it is opened.
"""

import os
import socket
import stat
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

SOCKETS = "/tmp/.X11-unix"  # noqa: S108  # where X servers listen
_LIMIT_SECONDS = 1.0
_COOKIE = b"MIT-MAGIC-COOKIE-1"
_EXTENSION = b"MIT-SCREEN-SAVER"
_COOKIES_BYTES = 65_536


class NoAnswer(Exception):
    """The X server does not say it, or not to us."""


def idle_seconds(display: int, cookies: Path, uid: int) -> float:
    """Seconds since the last input on display :`display`, which `uid` runs; `cookies` is its .Xauthority.

    Raises NoAnswer, within a second or so.
    """
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_LIMIT_SECONDS)
            with _looked_at(f"{SOCKETS}/X{display}", uid, stat.S_ISSOCK) as place:
                connection.connect(place)
            if _owner(connection) != uid:
                raise NoAnswer(f"display :{display} is somebody else's")
            return _Asked(connection).idle_seconds(_cookie(cookies, display, uid))
    except (OSError, struct.error, IndexError) as error:
        raise NoAnswer(f"display :{display} does not answer: {error}") from error


class _Asked:
    """An X server that is spoken to."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = time.monotonic() + _LIMIT_SECONDS

    def idle_seconds(self, cookie: bytes) -> float:
        root = self._enter(cookie)
        name = _padded(_EXTENSION)
        present, opcode = struct.unpack_from(
            "8x2B", self._ask(struct.pack("=BxHH2x", 98, 2 + len(name) // 4, len(_EXTENSION)) + name)
        )
        if not present:
            raise NoAnswer("it has no MIT-SCREEN-SAVER")
        (milliseconds,) = struct.unpack_from("=16xI", self._ask(struct.pack("=BBHI", opcode, 1, 2, root)))
        return float(milliseconds) / 1000

    def _enter(self, cookie: bytes) -> int:
        """Introduce ourselves. Returns the first screen's root window."""
        order = b"l" if struct.pack("=H", 1) == struct.pack("<H", 1) else b"B"
        name = _COOKIE if cookie else b""
        lengths = struct.pack("=cx4H2x", order, 11, 0, len(name), len(cookie))
        self._connection.sendall(lengths + _padded(name) + _padded(cookie))
        accepted, length = struct.unpack("=B5xH", self._read(8))
        told = self._read(4 * length)
        if accepted != 1:
            raise NoAnswer("it does not let us in")
        vendor, formats = struct.unpack_from("=16xH3xB", told)
        (root,) = struct.unpack_from("=I", told, 32 + len(_padded(bytes(vendor))) + 8 * formats)
        return int(root)

    def _ask(self, request: bytes) -> bytes:
        self._connection.sendall(request)
        reply = self._read(32)
        if reply[0] != 1:
            raise NoAnswer("it refuses")
        return reply

    def _read(self, number: int) -> bytes:
        told = b""
        while len(told) < number:
            self._connection.settimeout(max(0.001, self._deadline - time.monotonic()))
            more = self._connection.recv(number - len(told))
            if not more or time.monotonic() > self._deadline:
                raise NoAnswer("it stopped")
            told += more
        return told


@contextmanager
def _looked_at(path: str | Path, uid: int, is_right: Callable[[int], bool]) -> Iterator[str]:
    """Where to open what lies at `path`, which is `uid`'s and of the right kind. Raises NoAnswer, OSError."""
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        found = os.fstat(handle)
        if found.st_uid != uid or not is_right(found.st_mode):
            raise NoAnswer(f"{path} is somebody else's, or something else")
        yield f"/proc/self/fd/{handle}"
    finally:
        os.close(handle)


def _owner(connection: socket.socket) -> int:
    given = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", given)[1])


def _padded(words: bytes) -> bytes:
    return words + bytes(-len(words) % 4)


def _cookie(path: Path, display: int, uid: int) -> bytes:
    """What lets us in, from a file of `uid`'s; nothing where there is none."""
    for number, name, cookie in _entries(_words(path, uid)):
        if name == _COOKIE and number in (b"", str(display).encode()):
            return cookie
    return b""


def _words(path: Path, uid: int) -> bytes:
    try:
        with _looked_at(path, uid, stat.S_ISREG) as place:
            file = os.open(place, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(file, "rb") as cookies:
            return cookies.read(_COOKIES_BYTES)
    except (OSError, NoAnswer):
        return b""


def _entries(words: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Display number, kind and cookie of each entry: two bytes of family, then four strings (Xau's AuFileName(3))."""
    at = 0
    while at < len(words):
        at += 2
        strings = []
        for _ in range(4):
            (length,) = struct.unpack_from(">H", words, at)
            strings.append(words[at + 2 : at + 2 + length])
            at += 2 + length
        yield strings[1], strings[2], strings[3]
