"""Reads PostgreSQL's log in CloudWatch, as RDS writes it, and tells an SNS topic what looks suspicious.

The message says what happened, who did it and how often, without literals of statements and without e-mail addresses.
"""

import asyncio
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from allocator.upkeep.activity import without_literals

OVERLAP_MS = 120_000
"""An event may show later than its time says: each look goes back that far, and skips what it has seen."""

QUIET_MS = 3_600_000
"""What was told is not told again for that long."""

LINES = 50
"""The most that one message lists; the others are counted."""

# RDS's log_line_prefix is %t:%r:%u@%d:[%p]: (its user guide, "RDS for PostgreSQL database log files").
LINE = re.compile(
    r"^\S+ \S+ [^\s:]+:(?P<address>[^(]*?)(?:\(\d+\))?:(?P<role>[^@:]*)@(?P<database>[^:]*):\[\d+\]:"
    r"(?P<level>[A-Z]+):\s+(?P<text>.*)$",
    re.DOTALL,
)
STATEMENT = re.compile(
    r"^(?:duration: [\d.]+ ms\s+)?(?:statement|execute [^:]*): (?P<statement>.*)$"
    r"|^AUDIT: (?:[^,]*,){7}\"?(?P<audited>.*)$",
    re.DOTALL,
)
EMAIL = re.compile(r"[\w.+-]+@[\w-]+\.[\w.-]+")

MESSAGES = {
    "failed login": re.compile(
        r"authentication failed for user|no pg_hba\.conf entry|pg_hba\.conf rejects|is not permitted to log in"
        r"|^role .* does not exist"
    ),
    "permission denied": re.compile(r"permission denied|must be (?:owner|superuser|member)|row-level security"),
}
STATEMENTS = {
    "superuser": re.compile(
        r"\b(?:SUPERUSER|BYPASSRLS|REPLICATION|rds_superuser|session_replication_role)\b|\bSET\s+SESSION\s+AUTHORIZATION\b",
        re.IGNORECASE,
    ),
    "secrets read": re.compile(r"\b(?:lease_secrets|pg_authid|pg_shadow)\b", re.IGNORECASE),
    "role changed": re.compile(r"\b(?:CREATE|ALTER|DROP)\s+(?:ROLE|USER|GROUP)\b", re.IGNORECASE),
    "grant changed": re.compile(r"\b(?:GRANT|REVOKE)\b|\bALTER\s+DEFAULT\s+PRIVILEGES\b", re.IGNORECASE),
    "dropped": re.compile(
        r"\bDROP\s+(?:TABLE|SCHEMA|DATABASE|FUNCTION|TRIGGER|VIEW|POLICY|OWNED)\b|\bTRUNCATE\b|\bDISABLE\s+(?:TRIGGER|ROW)\b",
        re.IGNORECASE,
    ),
    "mass delete": re.compile(r"\bDELETE\s+FROM\s+(?:ONLY\s+)?[\w.\"]+\s*(?:;|$)", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Suspicion:
    """Something suspicious: who, what, how often, and when first and last (milliseconds since 1970)."""

    kind: str
    who: str
    what: str
    first_ms: int
    last_ms: int
    stream: str
    count: int = 1

    @property
    def line(self) -> str:
        """All of it in words."""
        often = "once" if self.count == 1 else f"{self.count} times"
        return f"{self.kind}, {often}: {self.who}: {self.what}"

    @property
    def key(self) -> str:
        """What makes it the same as another."""
        return "\n".join((self.kind, self.who, self.what))


@dataclass(slots=True)
class Memory:
    """How far the log was read, which events behind that were seen, and what was told when."""

    read_ms: int
    seen: dict[str, int] = field(default_factory=dict)
    told: dict[str, int] = field(default_factory=dict)

    @classmethod
    def kept_in(cls, file: Path, otherwise_ms: int) -> "Memory":
        """What the file says; a new one that begins at `otherwise_ms` when there is none, or it is not whole."""
        try:
            return cls(**json.loads(file.read_text()))
        except (OSError, ValueError, TypeError):
            return cls(otherwise_ms)

    def keep_in(self, file: Path) -> None:
        """Write it, whole or not at all."""
        file.parent.mkdir(parents=True, exist_ok=True)
        staging = file.with_name(f"{file.name}.{os.getpid()}")
        staging.write_text(
            json.dumps(
                {
                    "read_ms": self.read_ms,
                    "seen": {key: at for key, at in self.seen.items() if at >= self.read_ms - OVERLAP_MS},
                    "told": {key: at for key, at in self.told.items() if at >= self.read_ms - QUIET_MS},
                }
            )
        )
        staging.rename(file)


@dataclass(frozen=True, slots=True)
class Watcher:
    """What is read and who is told, with boto3's clients for `logs` and `sns`; both raise what botocore does."""

    logs: Any
    sns: Any
    log_group: str
    topic: str
    file: Path

    async def look(self, since_ms: int) -> list[Suspicion]:
        """Read on, tell what is suspicious in one message, and remember; `since_ms` is where the first look begins.

        Returns what was told. Told once at least: who is interrupted between telling and remembering tells it again.
        """
        return await asyncio.to_thread(self._look, since_ms)

    def _look(self, since_ms: int) -> list[Suspicion]:
        memory = Memory.kept_in(self.file, since_ms)
        fresh = [event for event in self._events(memory.read_ms - OVERLAP_MS) if event["eventId"] not in memory.seen]
        found = [each for each in grouped(suspicions(fresh)) if _is_news(each, memory)]
        if found:
            self.sns.publish(TopicArn=self.topic, Subject=subject(found), Message=message(found, self.log_group))
        memory.seen |= {event["eventId"]: event["timestamp"] for event in fresh}
        memory.told |= {each.key: each.last_ms for each in found}
        memory.read_ms = max([memory.read_ms, *(event["timestamp"] for event in fresh)])
        memory.keep_in(self.file)
        return found

    def _events(self, start_ms: int) -> Iterator[dict[str, Any]]:
        pages = self.logs.get_paginator("filter_log_events")
        for page in pages.paginate(logGroupName=self.log_group, startTime=max(0, start_ms)):
            yield from page["events"]


def suspicions(events: Iterable[dict[str, Any]]) -> Iterator[Suspicion]:
    """What is suspicious in these events of CloudWatch's."""
    for event in events:
        line = LINE.match(event["message"])
        kind, what = _suspicious(line["level"], line["text"]) if line else (None, "")
        if line and kind:
            who = f"{line['role'] or 'nobody yet'} from {line['address'] or 'the server itself'}"
            at = event["timestamp"]
            yield Suspicion(kind, who, EMAIL.sub("…", without_literals(what)), at, at, event.get("logStreamName", ""))


def grouped(found: Iterable[Suspicion]) -> list[Suspicion]:
    """The same thing once, with its count."""
    groups: dict[str, Suspicion] = {}
    for each in found:
        known = groups.get(each.key, replace(each, count=0))
        first, last = min(known.first_ms, each.first_ms), max(known.last_ms, each.last_ms)
        groups[each.key] = replace(known, count=known.count + each.count, first_ms=first, last_ms=last)
    return list(groups.values())


def subject(found: list[Suspicion]) -> str:
    """At most 100 characters of ASCII, as SNS takes."""
    kinds = ", ".join(sorted({each.kind for each in found}))
    return f"LabLink's database: {kinds}"[:100]


def message(found: list[Suspicion], log_group: str) -> str:
    """What was found, a line each, and where to read on."""
    lines = [each.line for each in found[:LINES]]
    more = [f"… and {len(found) - LINES} more."] if len(found) > LINES else []
    return "\n".join([*lines, *more, "", f"Read on in the log group {log_group}, stream {found[0].stream}."])


def _suspicious(level: str, text: str) -> tuple[str | None, str]:
    """The kind of suspicion and what it is about; None for an innocent line."""
    if level in ("ERROR", "FATAL"):
        return next(((kind, text) for kind, pattern in MESSAGES.items() if pattern.search(text)), (None, ""))
    ran = STATEMENT.match(text) if level == "LOG" else None
    statement = without_literals(ran["statement"] or ran["audited"] or "") if ran else ""
    return next(((kind, statement) for kind, pattern in STATEMENTS.items() if pattern.search(statement)), (None, ""))


def _is_news(found: Suspicion, memory: Memory) -> bool:
    told = memory.told.get(found.key)
    return told is None or found.last_ms - told >= QUIET_MS
