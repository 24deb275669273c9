"""Who brings wrong token after wrong token has to wait."""

from contextlib import ExitStack

import pytest

from allocator.errors import NotAdmin, TooManyTokens
from allocator.guesses import WRONG_TOKENS, Guesses


def refused(guesses: Guesses, token: str) -> None:
    with pytest.raises(NotAdmin), guesses.counted("ada", token, NotAdmin):
        raise NotAdmin


async def test_guesses_that_are_made_side_by_side_are_counted_as_well() -> None:
    guesses = Guesses()
    with ExitStack() as under_way:
        for number in range(WRONG_TOKENS):
            under_way.enter_context(guesses.counted("ada", f"guess {number}", NotAdmin))
        with pytest.raises(TooManyTokens), guesses.counted("ada", "one more", NotAdmin):
            pytest.fail("it was looked up")
        with guesses.counted("bob", "one more", NotAdmin), guesses.counted("ada", "guess 1", NotAdmin):
            pass

    with guesses.counted("ada", "one more", NotAdmin):
        pass


async def test_what_nobody_could_answer_was_no_guess() -> None:
    guesses = Guesses()
    for number in range(2 * WRONG_TOKENS):
        with pytest.raises(OSError, match="away"), guesses.counted("ada", f"token {number}", NotAdmin):
            raise OSError("the database is away")


async def test_who_guessed_too_often_is_heard_with_what_was_right_and_with_the_same_again() -> None:
    guesses = Guesses()
    with guesses.counted("ada", "right", NotAdmin):
        pass
    for number in range(WRONG_TOKENS):
        refused(guesses, f"guess {number}")

    with guesses.counted("ada", "right", NotAdmin):
        pass
    refused(guesses, "guess 0")
    with pytest.raises(TooManyTokens), guesses.counted("ada", "another", NotAdmin):
        pytest.fail("it was looked up")
