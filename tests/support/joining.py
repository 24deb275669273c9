"""A machine on EC2 on its way into the pool."""

import asyncio
import threading
from pathlib import Path

from client import joining
from client.settings import Credential, Settings, StateDir


class Joining:
    """A machine that joins in a thread, and gives up at its first wait unless `patient`."""

    class Waited(Exception):
        """It would have to wait, and does not."""

    def __init__(self, state: Path, url: str, secret: str) -> None:
        state.mkdir(exist_ok=True)
        self.state = StateDir(state)
        self.settings = Settings(allocator_url=url, join_secret=secret)
        self.waits = threading.Semaphore(0)
        self.patient = False
        self.go_on = threading.Event()

    async def join(self) -> Credential:
        """What it is once it has joined. Raises Waited."""
        return await asyncio.to_thread(joining.credential_of, self.state, self.settings, self._pause)

    def _pause(self, _seconds: float) -> None:
        self.waits.release()
        if not self.patient or not self.go_on.wait(60):
            raise self.Waited
