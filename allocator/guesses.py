"""Slows down who tries tokens: an address that brings wrong ones is asked to wait; whoever has a right one is not."""

import asyncio
from collections import defaultdict

from allocator.errors import TooManyTokens
from allocator.tokens import sha256

WINDOW_SECONDS = 60.0
WRONG_ONES = 10
"""How many an address may bring within the window. The same again is no guess, but a program that knows no better."""


class Guesses:
    """What addresses brought to this process. Behind a proxy all have one: so tokens that were right are remembered."""

    def __init__(self) -> None:
        self._wrong: defaultdict[str, set[bytes]] = defaultdict(set)
        self._right: set[bytes] = set()
        self._until = 0.0

    def check(self, address: str, token: str) -> None:
        """Raises TooManyTokens unless the token may be looked up."""
        now = asyncio.get_running_loop().time()
        if now >= self._until:
            self._wrong.clear()
            self._until = now + WINDOW_SECONDS
        wrong = self._wrong.get(address, set())
        if len(wrong) >= WRONG_ONES and sha256(token) not in self._right | wrong:
            raise TooManyTokens

    def note(self, address: str, token: str, *, right: bool) -> None:
        """It was looked up."""
        (self._right if right else self._wrong[address]).add(sha256(token))
