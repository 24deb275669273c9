"""What `lablink db watch-logs` does: a look now, and again and again."""

import asyncio
import hashlib
import os
import time
from dataclasses import asdict
from pathlib import Path

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from allocator.cli import output
from allocator.cli.failures import CommandFailed
from allocator.upkeep.watch_logs import Suspicion, Watcher

PATIENT = Config(retries={"mode": "adaptive", "max_attempts": 10}, connect_timeout=10, read_timeout=30)
"""CloudWatch allows few filter_log_events a second: botocore slows down by itself when it is told so."""


def watch(
    log_group: str, topic: str, since_seconds: float, every_seconds: float | None, state: Path | None, as_json: bool
) -> None:
    """Look once, or (`every_seconds`) until Ctrl-C. Raises CommandFailed when the only or first look fails."""
    try:
        logs, sns = boto3.client("logs", config=PATIENT), boto3.client("sns", config=PATIENT)
    except BotoCoreError as error:
        raise CommandFailed(f"AWS cannot be asked: {error}") from error
    watcher = Watcher(logs, sns, log_group, topic, state or _usual_place(log_group, topic))
    asyncio.run(_watch(watcher, since_seconds, every_seconds, as_json))


async def _watch(watcher: Watcher, since_seconds: float, every_seconds: float | None, as_json: bool) -> None:
    since_ms = int((time.time() - since_seconds) * 1000)
    await _look(watcher, since_ms, as_json)
    while every_seconds is not None:
        await asyncio.sleep(every_seconds)
        try:
            await _look(watcher, since_ms, as_json)
        except CommandFailed as error:
            output.complain(str(error))


async def _look(watcher: Watcher, since_ms: int, as_json: bool) -> None:
    try:
        _say(await watcher.look(since_ms), as_json)
    except (BotoCoreError, ClientError) as error:
        raise CommandFailed(f"AWS refused, and nothing is lost: the next look reads the same again. {error}") from error


def _say(found: list[Suspicion], as_json: bool) -> None:
    if as_json:
        return output.print_json_lines(asdict(each) for each in found)
    for each in found:
        output.say(each.line)
    if not found:
        output.say("Nothing suspicious.")


def _usual_place(log_group: str, topic: str) -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    name = hashlib.sha256(f"{log_group}\n{topic}".encode()).hexdigest()[:16]
    return Path(base) / "lablink" / f"watch-logs-{name}.json"
