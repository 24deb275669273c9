"""The loop of a VM's client: wake, say hello, do what the answer asks for. The journal decides what may start.

Each look compares what the database wants (Orders), what the journal knows (Entry) and what runs here (Work), and does
the next thing, so it does not matter which answer was lost, or where the client died and came back.
"""

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import NoReturn

from client.boot import Boot
from client.command import Command, CommandRefused
from client.executor import Executor, Started
from client.health import Health
from client.idle import Idle
from client.journal import Fenced, Journal, JournalError
from client.processes import ProcessesRemain
from client.protocol import CommandKind, Memory, Orders, Outcome, Report
from client.reboot import Desktops
from client.records import Entry, Key
from client.runner import CannotStart, Finished
from client.session import WipeFailed
from client.systemd import ALIVE, READY, tell_systemd
from client.transport import Refused, Transport, Unreachable
from client.work import OUTCOME, Work, command_of, ending_of, has_arrived, is_of_another, key_of, report_of

_SOON_SECONDS = 1.0
_PERIOD_SECONDS = 10.0
_AT_ONCE_SECONDS = 0.05
"""A command that ends sooner is reported once, as ended: each report wakes every listener of a direct fleet."""

log = logging.getLogger("lablink.client")


class Agent:
    """One machine's client. `checkpoint` is told each step, for tests that end the process there.

    `boot`, asked when the first hello was answered, is the machine's boot if this client is its first.
    """

    def __init__(
        self,
        transport: Transport,
        journal: Journal,
        executor: Executor,
        checkpoint: Callable[[str], None] = lambda step: None,
        boot: Callable[[], Boot | None] = lambda: None,
    ) -> None:
        self._transport = transport
        self._journal = journal
        self._executor = executor
        self._checkpoint = checkpoint
        self._boot = boot
        self._desktops = Desktops(executor.runs, journal.boot)
        self._health = Health(executor, transport.wake.set)
        self._idle = Idle(executor)
        self._beside: list[asyncio.Task[NoReturn]] = []
        self._work: Work | None = None
        self._stopped: Memory | None = None
        self._told: tuple[Key, Outcome] | None = None
        self._heard: Orders | None = None
        self._reachable = True
        self._refused_seconds = 0.0

    async def run(self) -> NoReturn:
        """Serve until cancelled, or until UnknownVm is raised. Whatever still runs then is stopped.

        A command that is stopped so leaves its intent open, just as in a crash: its lease fails as unknown.
        """
        try:
            async with self._watching():
                while True:
                    period = await self.look()
                    tell_systemd(ALIVE)
                    await self._transport.idle(period)
        finally:
            if self._work is not None and self._work.goes_on:
                await self._stop()

    @asynccontextmanager
    async def _watching(self) -> AsyncIterator[None]:
        self._beside = [asyncio.create_task(each.run()) for each in (self._health, self._idle)]
        try:
            yield
        finally:
            for task in self._beside:
                task.cancel()
            await asyncio.wait(self._beside)

    async def look(self) -> float:
        """Say hello once and do what it answers. Returns seconds to the next look: few after a refusal, then more."""
        self._transport.wake.clear()
        period = _PERIOD_SECONDS
        self._raise_what_went_wrong()
        try:
            trouble = await self._mend() or self._health.trouble
            orders = await self._transport.hello(self._journal.memory, self._idle.seconds)
            period = orders.period_seconds * random.uniform(0.8, 1.0)
            if self._heard is None:
                await self._arrive()
            self._note(orders)
            if trouble is None or await self._give_up(orders, trouble):
                await self._obey(orders)
        except Unreachable as error:
            if self._reachable:
                log.warning("unreachable", extra={"reason": str(error)})
            self._reachable = False
        except (Refused, JournalError, Fenced) as error:
            log.warning("refused", extra={"reason": str(error)})
            self._refused_seconds = min(period, max(_SOON_SECONDS, 2 * self._refused_seconds))
            return self._refused_seconds
        self._refused_seconds = 0.0
        return period

    async def _arrive(self) -> None:
        """Tell once how the machine came here. An allocator that cannot be told (it may be older) misses a figure."""
        tell_systemd(READY)
        if boot := self._boot():
            with suppress(Refused, Unreachable):
                await self._transport.booted(boot)

    def _raise_what_went_wrong(self) -> None:
        """An error in a task beside this one is an error of this client."""
        for task in (*self._beside, *([self._work.ending] if self._work else ())):
            if task.done() and not task.cancelled():
                task.result()

    async def _mend(self) -> str | None:
        """Read the journal if it is not trusted: at the start, and after a failed write. Returns what is wrong with it.

        It is read before the first hello, so every command that a crash interrupted is unknown by then, and is killed.
        """
        if self._journal.trusted:
            return None
        try:
            await self._end()
            await self._reload()
            if self._journal.has_unknown:
                await self._executor.kill()
            trouble = await self._health.first_trouble()
        except (JournalError, WipeFailed, ProcessesRemain) as error:
            return str(error)
        self._checkpoint("recovered")
        return trouble

    async def _reload(self) -> None:
        try:
            self._journal.reload()
        except JournalError:
            await self._executor.wipe()  # it may be what fills the disk, and no lease survives this anyway
            self._journal.reload()

    async def _obey(self, orders: Orders) -> None:
        key = key_of(orders)
        try:
            if self._journal.damaged:
                await self._rebuild(orders, key)
            if orders.status == "cleaning":
                await self._clean(orders)
            elif is_of_another(self._journal.memory, key):
                await self._stop()
            if key is not None:
                await self._serve(orders, key)
            await self._health.tell_well(self._transport.well, orders)
        except (WipeFailed, ProcessesRemain) as error:
            await self._give_up(orders, str(error))

    async def _give_up(self, orders: Orders, reason: str) -> bool:
        """Take no work, and say so; once that was heard, nothing of the last lease goes on here either.

        Returns whether it goes on all the same, because the machine stays with whoever has it.
        """
        if orders.status != "failed":
            return await self._health.tell(self._transport.unhealthy, orders, reason)
        if is_of_another(self._journal.memory, None):
            with suppress(ProcessesRemain):
                await self._stop()
        return False

    async def _rebuild(self, orders: Orders, key: Key | None) -> None:
        """The journal is damaged: nothing here can be trusted, up to the epoch that the database is at."""
        log.error("journal damaged", extra={"epoch": orders.epoch})
        await self._end()
        await self._executor.wipe()
        self._journal.rebuild(orders.epoch, key.lease_id if key else None)
        self._checkpoint("rebuilt")

    async def _clean(self, orders: Orders) -> None:
        if not self._health.is_clearing(orders.epoch):  # else it is wiped, and that would end what looks at it
            await self._wipe(orders.epoch)
        if await self._health.clears(orders.epoch):
            await self._transport.cleaned(orders.epoch)
            self._checkpoint("cleaned")
        elif self._health.trouble:
            await self._give_up(orders, self._health.trouble)

    async def _wipe(self, epoch: int) -> None:
        """The fence comes before the first file goes: from then on nothing can make this machine resume the lease."""
        await self._end()
        self._checkpoint("stopped")
        self._journal.fence_off(epoch)
        self._checkpoint("fenced")
        await self._executor.wipe()
        self._checkpoint("wiped")

    async def _serve(self, orders: Orders, key: Key) -> None:
        known = self._journal.entry(key) is not None
        if not known and orders.lease_status in ("assigned", "claimed"):
            await self._begin(orders, key)
        elif known and orders.lease_status == "assigned":
            with suppress(CommandRefused):
                await self._transport.claim(orders.epoch)  # only what was claimed can be reported
        if (entry := self._journal.entry(key)) and (entry := await self._desktops.after_reboot(entry)):
            await self._tell(entry, orders)

    async def _begin(self, orders: Orders, key: Key) -> None:
        try:
            assignment = await self._transport.claim(orders.epoch)
            command = command_of(assignment)
        except CommandRefused as refused:
            self._journal.conclude(Entry(key, "failed", output=str(refused), failure="refused"))
            return
        self._checkpoint("claimed")
        try:
            self._journal.intend(key, command.kind)
        except Fenced:
            await self._transport.report(Report(*key, "failed", failure="database-restored"))
            raise
        self._checkpoint("intent")
        await self._start(key, command, orders.hostname, assignment.limit_seconds)

    async def _start(self, key: Key, command: Command, name: str, limit_seconds: float) -> None:
        try:
            running = await self._executor.start(command, name=name, limit_seconds=limit_seconds)
        except CannotStart as error:
            self._journal.conclude(ending_of(key, command.kind, error.finished, started=False))
            return
        self._checkpoint("started")
        log.info("started", extra={"lease": key.lease_id, "epoch": key.epoch, "kind": command.kind})
        ending = asyncio.create_task(self._await_end(key, command.kind, running))
        self._work = Work(key, running, ending)
        await asyncio.wait({ending}, timeout=_AT_ONCE_SECONDS)
        self._raise_what_went_wrong()
        if not ending.done() or not self._journal.trusted:
            ending.add_done_callback(lambda _: self._transport.wake.set())

    async def _await_end(self, key: Key, kind: CommandKind, running: Started) -> None:
        """Record how the command ended. When that cannot be written, the next look finds the journal untrusted."""
        try:
            finished = await running.wait()
        except ProcessesRemain:
            finished = Finished(None, "", failure="timed-out")
        self._checkpoint("exited")
        with suppress(JournalError):
            self._journal.conclude(ending_of(key, kind, finished, started=True))
        self._checkpoint("done")
        log.info("exited", extra={"lease": key.lease_id, "epoch": key.epoch, "exit_code": finished.exit_code})

    async def _tell(self, entry: Entry, orders: Orders) -> None:
        """Report the command's state until that was answered. A refusal is an answer too."""
        told = entry.key, OUTCOME[entry.state]
        if told == self._told and has_arrived(told[1], orders):
            return
        try:
            await self._transport.report(report_of(entry))
        except Refused:
            self._told = told
            raise
        self._told = told
        self._checkpoint(f"reported {told[1]}")

    async def _stop(self) -> None:
        """End what was started last, and all that it started; once that was done, nothing of it is there again."""
        if self._stopped != self._journal.memory:
            await self._end()
            await self._executor.kill()
            self._stopped = self._journal.memory

    async def _end(self) -> None:
        """End the command, before a wipe or a search ends whatever else it started."""
        if self._work is not None:
            await self._work.end()
            self._work = None

    def _note(self, orders: Orders) -> None:
        if orders != self._heard or not self._reachable:
            fields = {"status": orders.status, "epoch": orders.epoch, "lease": orders.lease_id}
            log.info("orders", extra=fields | {"lease_status": orders.lease_status})
        self._heard, self._reachable = orders, True
        self._health.note(orders)
        self._idle.note(orders)
