"""Slows down who tries tokens or codes: who brings wrong ones has to wait; with a right one they have not."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from allocator.errors import TooManyTokens
from allocator.tokens import sha256

WINDOW_SECONDS = 60.0
WRONG_TOKENS = 10
"""How many one may bring within the window. The same again is no guess, but a program that knows no better."""


class Guesses:
    """What was brought to this process, and by whom: an address. Behind a proxy all have one: so tokens that were right
    are remembered."""

    def __init__(self) -> None:
        self._wrong: defaultdict[str, set[bytes]] = defaultdict(set)
        self._right: set[bytes] = set()
        self._until = 0.0

    def check(self, who: str, token: str) -> None:
        """Raises TooManyTokens unless the token may be looked up."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._wrong.clear()
            self._until = now + WINDOW_SECONDS
        wrong = self._wrong.get(who, set())
        if len(wrong) >= WRONG_TOKENS and sha256(token) not in self._right | wrong:
            raise TooManyTokens

    def note(self, who: str, token: str, *, right: bool) -> None:
        """It was looked up."""
        (self._right if right else self._wrong[who]).add(sha256(token))

    @contextmanager
    def counted(self, who: str, code: str, wrong: type[Exception]) -> Iterator[None]:
        """The block tries a code, and raises `wrong` if it is. Raises TooManyTokens unless it may be tried."""
        self.check(who, code)
        try:
            yield
        except wrong:
            self.note(who, code, right=False)
            raise
        self.note(who, code, right=True)
