"""Who is connected, and what of all that changes concerns them: each is told once, and nobody is told of others.

What this allocator lends itself it tells straight from the answer of the database; of everything else it hears by
notification. An epoch has each status once, so whoever was told of both together has been told.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count

from allocator.link import WAKE, Link, News, if_there
from allocator.requesting import Lent
from allocator.tasks import Spawned
from client.protocol import Hint, parse_hints

HOLD_SECONDS = 0.02
"""How long a notification of a machine that was lent may wait for the answer that says what to do there."""

STRANGERS = 20_000
"""Of how many machines it is noted what was hinted at while others arrive; after more, whoever arrives is to look."""


@dataclass(eq=False, slots=True)
class _Held:
    """Hints that wait for all blocks up to this one to end."""

    block: int
    hints: list[Hint]


class Telling:
    """The links of machines whose first hello was answered."""

    def __init__(self) -> None:
        self._links: dict[int, Link] = {}
        self._arriving = 0
        self._hinted: defaultdict[int, set[News]] = defaultdict(set)
        self._gaps = 0
        self._blocks = count()
        self._newest = 0
        self._lending: set[int] = set()
        self._held: list[_Held] = []
        self._spawned = Spawned()

    @property
    def machines(self) -> int:
        """How many have a link."""
        return len(self._links)

    def heard(self, payload: str) -> None:
        """A notification: wake the machines that it hints at. One that cannot be read is somebody's, and wakes none."""
        if self._links or self._arriving:
            hints = parse_hints(payload) or ()
            self._note_for_strangers(hints)
            held: list[Hint] = []
            for hint in hints:
                if self._lending and hint.status == "in-use":
                    held.append(hint)
                else:
                    self._hint(hint)
            if held:
                self._hold(_Held(self._newest, held))

    def missed(self) -> None:
        """Notifications may have been missed: every machine is to look."""
        self._gaps += 1
        for link in self._links.values():
            self._wake(link)

    @contextmanager
    def lending(self) -> Iterator[Callable[[Iterable[Lent]], None]]:
        """In the block machines may be lent; the function that it gets is told which, before notifications count."""
        self._newest = own = next(self._blocks)
        self._lending.add(own)
        try:
            yield self._lend
        finally:
            self._lending.remove(own)
            oldest = min(self._lending, default=self._newest + 1)
            self._let_in([held for held in self._held if held.block < oldest])

    @contextmanager
    def arriving(self, link: Link) -> Iterator[None]:
        """In the block it turns out whose link it is; what was hinted at meanwhile is told then."""
        arrives, gaps = link.vm_id is None, self._gaps
        self._arriving += arrives
        try:
            yield
            if arrives and link.vm_id is not None:
                hinted = self._hinted.get(link.vm_id, ())
                if gaps != self._gaps or not all(link.knows(news) for news in hinted):
                    self._wake(link)
        finally:
            self._arriving -= arrives
            if not self._arriving:
                self._hinted.clear()

    def enter(self, link: Link, vm_id: int) -> Link | None:
        """It is this machine's from now on. Returns the older one that it has lost, which may not know that yet."""
        older, self._links[vm_id] = self._links.get(vm_id), link
        return None if older is link else older

    def leave(self, link: Link) -> None:
        """It is no more."""
        if link.vm_id is not None and self._links.get(link.vm_id) is link:
            del self._links[link.vm_id]

    def _lend(self, lent: Iterable[Lent]) -> None:
        for each in lent:
            link, news = self._links.get(each.vm_id), (each.epoch, "in-use")
            if link is not None and not link.is_woken and not link.knows(news):
                link.learns(news)
                self._tell(link, _orders(each))

    def _note_for_strangers(self, hints: Iterable[Hint]) -> None:
        if self._arriving:
            for hint in hints:
                self._hinted[hint.id].add((hint.epoch, hint.status))
            if len(self._hinted) > STRANGERS:
                self._gaps += 1
                self._hinted.clear()

    def _hold(self, held: "_Held") -> None:
        """Until the blocks that are open now have ended: each of them may be what it tells of."""
        self._held.append(held)
        asyncio.get_running_loop().call_later(HOLD_SECONDS, self._let_in, [held])

    def _let_in(self, those: Iterable["_Held"]) -> None:
        for held in those:
            if held in self._held:
                self._held.remove(held)
                for hint in held.hints:
                    self._hint(hint)

    def _hint(self, hint: Hint) -> None:
        link = self._links.get(hint.id)
        if link is not None and not link.knows((hint.epoch, hint.status)):
            self._wake(link)

    def _wake(self, link: Link) -> None:
        if link.is_to_wake():
            self._tell(link, WAKE)

    def _tell(self, link: Link, news: str) -> None:
        if sending := link.tell(news):
            self._spawned.spawn(if_there(sending))


def _orders(lent: Lent) -> str:
    """What a hello would be answered in this moment, as far as it is not as it was at the last one.

    It is the JSON itself, for nothing in it needs an escape, and making it of a dict takes six times as long.
    """
    return (
        f'{{"orders": {{"vm_id": {lent.vm_id}, "status": "in-use", "epoch": {lent.epoch}, '
        f'"lease_id": "{lent.lease_id}", "lease_status": "assigned", "kind": "{lent.kind}"}}}}'
    )
