"""What a command prints, kept small and clean: the end of it, without secrets and without what terminals act on."""

import asyncio
import os
import re
from collections.abc import Callable

LIMIT_BYTES = 64 * 1024

_MARGIN = 4096  # longer than any secret: what is left of one that was cut lies in here
_CHUNK_BYTES = 64 * 1024
_DRAIN_CHUNKS = 16
_UNPRINTABLE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Output:
    """Both streams of a command through one pipe, read from `follow` on until the last process has closed it.

    Give `sink` to the command and close it then; close this when the session ends.
    """

    def __init__(self) -> None:
        self._source, self.sink = os.pipe()
        os.set_blocking(self._source, False)
        self._loop = asyncio.get_running_loop()
        self._on_overflow: Callable[[], None] | None = None
        self._tail = bytearray()
        self._count = 0
        self._closed = False

    @property
    def overflowed(self) -> bool:
        """Whether there was more than is kept."""
        return self._count > LIMIT_BYTES

    def follow(self, on_overflow: Callable[[], None] | None) -> None:
        """Start to read. `on_overflow` is called once, when there has been more than LIMIT_BYTES."""
        self._on_overflow = on_overflow
        self._loop.add_reader(self._source, self._read)

    def text(self, redact: Callable[[str], str]) -> str:
        """The end of what came so far, redacted before it is cut to LIMIT_BYTES. It says so when it was cut."""
        self._drain()
        lines = self._tail.decode(errors="replace").replace("\r\n", "\n").replace("\r", "\n")
        text = redact(_UNPRINTABLE.sub("", lines))
        return end_of(text[_MARGIN:], f"[only the end of {self._count:,} bytes]\n") if self.overflowed else end_of(text)

    def close(self) -> None:
        """Stop reading. A process that still writes gets SIGPIPE."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._source)
            os.close(self._source)

    def _drain(self) -> None:
        for _ in range(_DRAIN_CHUNKS):  # a process that never stops printing must not keep us here
            if self._closed or not self._read():
                return

    def _read(self) -> bool:
        try:
            chunk = os.read(self._source, _CHUNK_BYTES)
        except BlockingIOError:
            return False
        if not chunk:
            self.close()
        self._keep(chunk)
        return bool(chunk)

    def _keep(self, chunk: bytes) -> None:
        fitted = not self.overflowed
        self._count += len(chunk)
        self._tail += chunk
        del self._tail[: -(LIMIT_BYTES + _MARGIN)]
        if fitted and self.overflowed and self._on_overflow:
            self._on_overflow()


def end_of(text: str, notice: str = "") -> str:
    """`notice` and the end of `text`, together at most LIMIT_BYTES of UTF-8."""
    room = LIMIT_BYTES - len(notice.encode())
    return notice + text.encode()[-room:].decode(errors="ignore")
