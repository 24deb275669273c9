"""A terraform at work. It prints into a file and not to us: when we are killed it goes on, and writes its state."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

LOOK_SECONDS = 0.1
NOT_OURS = (OSError, ValueError, TypeError, IndexError)


@dataclass(frozen=True, slots=True)
class Run:
    """Which process a run is, and when it was begun (seconds since 1970); kept in a file for as long as it runs."""

    pid: int
    born: int
    at: float

    @property
    def goes_on(self) -> bool:
        """Whether it still runs: a process of that number that was born later is another."""
        return _born(self.pid) == self.born

    async def ended(self) -> None:
        """Wait for its end, then end what it started and left: providers outlive a terraform that is killed."""
        while self.goes_on:  # noqa: ASYNC110  # it is no child of ours, so nothing announces its end
            await asyncio.sleep(LOOK_SECONDS)
        for pid in _left_by(self.pid):
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


class Terminal:
    """Where runs print, and where it is noted which one is at work."""

    def __init__(self, work: Path) -> None:
        self._output = work / "output"
        self._running = work / "running"

    async def run_of_before(self) -> Run | None:
        """The run that was at work when we were killed, or that was killed itself; it has ended when this returns."""
        try:
            run = Run(**json.loads(self._running.read_text()))
        except NOT_OURS:
            return None
        await run.ended()
        self._running.unlink(missing_ok=True)
        return run

    async def start(
        self, argv: Sequence[str], root: Path, environment: Mapping[str, str]
    ) -> asyncio.subprocess.Process:
        """Start it, with its output in the file. Raises FileNotFoundError."""
        with open(self._output, "wb") as output:
            process = await asyncio.create_subprocess_exec(
                *argv,
                cwd=root,
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # a Ctrl-C here is passed on once, by us
            )
        self._running.write_text(json.dumps(asdict(Run(process.pid, _born(process.pid), time.time()))))
        return process

    async def lines(self, process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
        """Each line that it prints as an object, until it has ended."""
        end, rest = asyncio.ensure_future(process.wait()), b""
        with open(self._output, "rb") as output:
            while True:
                over = end.done()
                *whole, rest = (rest + output.read()).split(b"\n")
                for raw in whole:
                    yield _read(raw)
                if over:
                    return
                await asyncio.wait([end], timeout=LOOK_SECONDS)

    async def finish(self, process: asyncio.subprocess.Process) -> None:
        """Wait for its end, having asked for it where it goes on."""
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT)
        await process.wait()
        if process.returncode != -signal.SIGKILL:
            self._running.unlink(missing_ok=True)


def _read(raw: bytes) -> dict[str, Any]:
    """A line as an object; what is none was printed by something else than Terraform's reporter."""
    with suppress(json.JSONDecodeError):
        line = json.loads(raw)
        if isinstance(line, dict):
            return line
    return {"@level": "info", "type": "text", "@message": raw.decode(errors="replace").strip()}


def _born(pid: int) -> int:
    """When the process was started, in the kernel's ticks; 0 when it is not there any more."""
    try:
        state, *rest = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return 0 if state == "Z" else int(rest[18])
    except NOT_OURS:
        return 0


def _left_by(leader: int) -> Iterator[int]:
    """Providers of Terraform in the process group of that number."""
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(*NOT_OURS):
            group = int((place / "stat").read_text().rpartition(")")[2].split()[2])
            if group == leader and b"terraform-provider" in (place / "cmdline").read_bytes():
                yield int(place.name)
