"""What a session uses of its machine: processor time, and since when nobody has touched its desktops."""

import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from client.processes import adopts_orphans, children_of, find_remains
from client.session import Session
from client.x11 import NoAnswer, idle_seconds

_TICKS = os.sysconf("SC_CLK_TCK")
_DISPLAY = re.compile(r":(\d{1,5})")
_DISPLAYS = 4
"""So many are asked at most, each for a second: whoever has the machine starts as many as they like."""

_WORDS_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Usage:
    """`processor_seconds` of all its processes so far; `untouched_seconds` is None where no desktop says that."""

    processor_seconds: float
    untouched_seconds: float | None


def usage_of(session: Session) -> Usage | None:
    """What the session uses now; None where its processes cannot be told from others."""
    if sys.platform != "linux" or not (session.account or adopts_orphans()):
        return None
    uid = session.account.uid if session.account else os.geteuid()
    processes = find_remains(session.belongings) if session.account else _descendants(os.getpid())
    return Usage(sum(map(_processor_seconds, processes)), min(_untouched(processes, session, uid), default=None))


def _descendants(pid: int) -> list[int]:
    found = children_of(pid)
    for child in found:  # which grows meanwhile
        found += children_of(child)
    return found


def _processor_seconds(pid: int) -> float:
    """That of the process and of its children that have ended (proc(5)); 0 when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/stat", "rb", buffering=0) as stat:
        fields = stat.read().rpartition(b") ")[2].split()
        return sum(map(int, fields[11:15])) / _TICKS
    return 0.0


def _untouched(processes: Iterable[int], session: Session, uid: int) -> Iterator[float]:
    """For how long nobody touched each desktop."""
    for display, cookies in islice(_desktops(processes, session), _DISPLAYS):
        with suppress(NoAnswer):
            yield idle_seconds(display, cookies, uid)


def _desktops(processes: Iterable[int], session: Session) -> Iterator[tuple[int, Path]]:
    """The display of every process that is an X server, and the file of its cookies."""
    for pid in processes:
        words = _words(pid)
        if os.path.basename(words[0]).startswith("X") and (display := _display(words)) is not None:
            yield display, _cookies(words, session)


def _words(pid: int) -> list[str]:
    """How the process was started, as it says itself; nothing when it is gone."""
    with suppress(OSError), open(f"/proc/{pid}/cmdline", "rb", buffering=0) as words:
        return words.read(_WORDS_BYTES).decode(errors="replace").split("\0")
    return [""]


def _display(words: list[str]) -> int | None:
    named = (_DISPLAY.fullmatch(word) for word in words[1:])
    return next((int(match[1]) for match in named if match), None)


def _cookies(words: list[str], session: Session) -> Path:
    named = words[words.index("-auth") + 1] if "-auth" in words[:-1] else ".Xauthority"
    return session.directory / named
