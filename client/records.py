"""How the lines of the journal look, and which of a file's lines may be believed.

A line is `<checksum> <length> <json>`. The checksum runs on from line to line, so that a line that was changed, lost or
moved is noticed. A last line without its end was cut short: it never was durable, nothing followed from it, and it is
left out. Anything else that does not read is damage.
"""

import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, NamedTuple
from uuid import UUID

from client.protocol import CommandKind

State = Literal["intent", "done", "failed", "unknown"]

_HEADER = re.compile(rb"([0-9a-f]{8}) ([0-9]{1,7}) ")
_CUT_HEADER = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} [0-9]{0,7}")


class Key(NamedTuple):
    """What a command starts at most once for."""

    lease_id: UUID
    epoch: int


@dataclass(frozen=True, slots=True)
class Fence:
    """The machine was wiped at this epoch: nothing up to it may start any more."""

    epoch: int


@dataclass(frozen=True, slots=True)
class Entry:
    """What became of the command of one key. `output` is already redacted; `failure` is a Failure.

    `kind` is what a lease whose line was typed has yet to be told. `boot` is the machine's boot in which it ended.
    """

    key: Key
    state: State
    exit_code: int | None = None
    output: str = ""
    failure: str | None = None
    kind: CommandKind | None = None
    boot: str | None = None


Record = Fence | Entry


class Reading(NamedTuple):
    """What a file says: the records that can be believed, and whether that is all of it."""

    records: list[Record]
    whole: bool


def encode(record: Record, previous: int) -> tuple[bytes, int]:
    """The line of a record that follows a line with the checksum `previous`, and its own checksum."""
    body = json.dumps(_fields(record), separators=(",", ":")).encode()
    checksum = zlib.crc32(body, previous)
    return b"%08x %d %s\n" % (checksum, len(body), body), checksum


def encode_all(records: Iterable[Record]) -> tuple[bytes, int]:
    """A whole file, and the checksum of its last line."""
    lines, checksum = [], 0
    for record in records:
        line, checksum = encode(record, checksum)
        lines.append(line)
    return b"".join(lines), checksum


def decode(data: bytes) -> Reading:
    """What the file says. Not whole: it is damaged, or it does not begin with a fence as every file does."""
    records: list[Record] = []
    checksum = 0
    while data and not _is_cut(data):
        header = _HEADER.match(data)
        body, data = _split(data, header) if header else (b"", data)
        record = _record(body)
        checksum = zlib.crc32(body, checksum)
        if header is None or record is None or checksum != int(header[1], 16):
            return Reading(records, False)
        records.append(record)
    return Reading(records, bool(records) and isinstance(records[0], Fence))


def _is_cut(line: bytes) -> bool:
    """Whether a last line merely stops too early; one that lacks only its newline is complete."""
    if b"\n" in line:
        return False
    header = _HEADER.match(line)
    return len(line) - header.end() < int(header[2]) if header else _CUT_HEADER.fullmatch(line) is not None


def _split(data: bytes, header: re.Match[bytes]) -> tuple[bytes, bytes]:
    """The body that the header announces, and what follows it; an empty body when it does not end where it should."""
    end = header.end() + int(header[2])
    return (data[header.end() : end], data[end + 1 :]) if data[end : end + 1] in (b"\n", b"") else (b"", data)


def _fields(record: Record) -> dict[str, object]:
    if isinstance(record, Fence):
        return {"fence": record.epoch}
    return asdict(record) | {"key": [str(record.key.lease_id), record.key.epoch]}


def _record(body: bytes) -> Record | None:
    try:
        fields = json.loads(body)
        if "fence" in fields:
            return Fence(int(fields["fence"]))
        lease_id, epoch = fields.pop("key")
        return Entry(Key(UUID(lease_id), int(epoch)), **fields)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
