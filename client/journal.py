"""What the machine itself knows for sure: which commands it may have started, and up to which epoch it is fenced off.

The file is only ever appended to, or replaced whole when the journal is opened and when the machine is wiped; so it
never holds more than a fence and what happened since. Once a write has failed, nothing is believed before `reload`.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

from client import durable
from client.protocol import CommandKind, Memory
from client.records import Entry, Fence, Key, Record, decode, encode, encode_all


class JournalError(Exception):
    """The journal could not be read or written: what it says is not known until it was read again."""


class Fenced(Exception):
    """This command must not start: the machine was wiped since, or remembers something newer."""


class Journal:
    """The journal of one machine, unknown before `reload`. It belongs to whoever holds the state directory's lock."""

    def __init__(self, path: Path, boot: str | None = None) -> None:
        self.path = path
        self.boot = boot
        """This boot of the machine, for which what ends is written down; None where that is not known."""
        self.fence = 0
        self.trusted = False
        """False from a failed write to the next `reload`: nothing may be written, and no work may be taken."""
        self.damaged = False
        """True when the file is not what was written: no work may be taken before `rebuild`."""
        self._entries: dict[Key, Entry] = {}
        self._checksum = 0

    @classmethod
    def create(cls, path: Path) -> None:
        """Begin the journal of a machine that has just enrolled, unless it has one. A missing one is damage later."""
        if not path.exists():
            durable.replace(path, encode_all([Fence(0)])[0])

    def reload(self) -> None:
        """Read the disk (again), close open intents and write all of it anew, which shows that it can be written.

        Raises JournalError.
        """
        self.trusted = False
        reading = decode(self._read())
        self.damaged = not reading.whole
        self._remember(reading.records)
        self._close_intents()
        if not self.damaged:
            self._write_all()
        self.trusted = True

    @property
    def memory(self) -> Memory:
        """The highest epoch that the machine remembers, and its lease unless it is the fence's."""
        newest = max(self._entries, key=lambda key: key.epoch, default=None)
        if newest is None or newest.epoch <= self.fence:
            return Memory(self.fence, None)
        return Memory(newest.epoch, newest.lease_id)

    @property
    def has_unknown(self) -> bool:
        """Whether the outcome of the last command is unknown, so that something of it may still run.

        What was before it is gone: it began in an empty session.
        """
        newest = max(self._entries, key=lambda key: key.epoch, default=None)
        return newest is not None and self._entries[newest].state == "unknown"

    def entry(self, key: Key) -> Entry | None:
        """What is known of the command of `key`; None when it was never started."""
        return self._entries.get(key)

    def intend(self, key: Key, kind: CommandKind | None = None) -> None:
        """Record that the command of `key` is about to start; from here on it never starts again. Raises Fenced."""
        memory = self.memory
        if self.damaged or key in self._entries or key.epoch <= memory.epoch:
            raise Fenced(f"epoch {key.epoch} is not above {memory.epoch}, which this machine remembers")
        self._append(Entry(key, "intent", kind=kind))

    def conclude(self, entry: Entry) -> None:
        """Record how a command ended, or why it never started. The first ending of a key stands."""
        known = self._entries.get(entry.key)
        if entry.key.epoch > self.fence and (known is None or known.state == "intent"):
            self._append(replace(entry, boot=self.boot))

    def fence_off(self, epoch: int) -> None:
        """Record the wipe at `epoch`: one durable write raises the fence and leaves no intent open behind it."""
        self._require_trust()
        self.fence = max(epoch, self.fence)
        self._entries = {key: entry for key, entry in self._entries.items() if key.epoch > self.fence}
        self._close_intents()
        self._write_all()

    def rebuild(self, epoch: int, lease_id: UUID | None) -> None:
        """Begin anew after damage: fenced at `epoch`; a lease that is live at it has an unknown outcome."""
        self._require_trust()
        self.fence = max(self.fence, epoch if lease_id is None else epoch - 1)
        key = None if lease_id is None else Key(lease_id, epoch)
        self._entries = {key: Entry(key, "unknown", failure="unknown")} if key and epoch > self.fence else {}
        self._write_all()
        self.damaged = False

    def _remember(self, records: list[Record]) -> None:
        self.fence = max((record.epoch for record in records if isinstance(record, Fence)), default=0)
        self._entries = {record.key: record for record in records if isinstance(record, Entry)}

    def _close_intents(self) -> None:
        for key, entry in self._entries.items():
            if entry.state == "intent":
                self._entries[key] = replace(entry, state="unknown", failure="unknown")

    def _append(self, entry: Entry) -> None:
        self._require_trust()
        line, checksum = encode(entry, self._checksum)
        self._write(durable.append, line)
        self._entries[entry.key] = entry
        self._checksum = checksum

    def _write_all(self) -> None:
        data, self._checksum = encode_all([Fence(self.fence), *self._entries.values()])
        self._write(durable.replace, data)

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            raise JournalError(f"the journal cannot be read: {error.strerror}") from error

    def _write(self, write: Callable[[Path, bytes], None], data: bytes) -> None:
        try:
            write(self.path, data)
        except OSError as error:
            self.trusted = False
            raise JournalError(f"the journal cannot be written: {error.strerror}") from error

    def _require_trust(self) -> None:
        if not self.trusted:
            raise JournalError("the journal failed and was not read again")
