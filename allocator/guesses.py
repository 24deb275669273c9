"""Slows down who tries tokens or codes: who brings wrong ones has to wait, but not with one that was right before."""

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

    @contextmanager
    def counted(self, who: str, token: str, wrong: type[Exception]) -> Iterator[None]:
        """The block tries a token, and raises `wrong` if it is. Raises TooManyTokens unless it may be tried.

        Until the block has ended it counts as wrong: those that are tried side by side are no fewer.
        """
        tried, known = self._tried_by(who), sha256(token)
        is_new = known not in self._right | tried
        if is_new and len(tried) >= WRONG_TOKENS:
            raise TooManyTokens
        tried |= {known} - self._right
        try:
            yield
        except wrong:
            self._wrong[who].add(known)  # whose window may be another by now
            raise
        except BaseException:
            tried -= {known} if is_new else set()
            raise
        self._right.add(known)
        tried.discard(known)

    def _tried_by(self, who: str) -> set[bytes]:
        """What they brought within the window and was not right."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._wrong.clear()
            self._until = now + WINDOW_SECONDS
        return self._wrong[who]
