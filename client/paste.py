"""What people really paste, undone: word processors' quotes and dashes, prompts, wrapped lines; then cut into words.

Nothing here expands, substitutes or joins anything the way a shell would: such characters are refused by name.
"""

import re
import shlex
from collections.abc import Iterator
from typing import NoReturn

HERE = "\ufffc"
"""Stands for `$(hostname)` and its like, so that only a value which is ignored anyway can contain one."""

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_PROMPT = re.compile(
    r"\A(?:PS [A-Z]:[^>\n]*> *|(?:\([\w.-]{1,64}\) )?(?:\[?[\w.-]{1,64}@[\w.-]{1,64}[:\w ~/.-]{0,100}\]?)?[$#] +)"
)
_HOSTNAME = re.compile(
    r"\$\(hostname\)|`hostname`|\$\{?HOSTNAME\b\}?|\$\{?Env:COMPUTERNAME\b\}?|%COMPUTERNAME%", re.IGNORECASE
)

_LOOKALIKES = {'"': "“”„‟″«»", "'": "‘’‚‛′", "-": "‐‑−", "": "\u200b\u200c\u200d\u2060\ufeff"}
_PLAIN = str.maketrans({odd: plain for plain, all_odd in _LOOKALIKES.items() for odd in all_odd})
_LONG_DASH = re.compile(r"(?<!\S)[–—]-?(?=[a-z])")
_ODD_SPACE = re.compile("[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]")

_GAP = re.compile(r"(?:\s|[\\^`][ \t]*\n)*")  # a line may be continued the way bash, cmd or PowerShell do
_WORD = re.compile(rf"""(?:"[^"]*"|'[^']*'|[\w./:%=@,+~{HERE}-])+""")
_QUOTES = re.compile(r""""([^"]*)"|'([^']*)'""")
_WRAP = re.compile(r"\s*[\\^`]?\n\s*")

_QUOTED = re.compile(r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.""", re.DOTALL)
_QUOTED_OR_ODD_SPACE = re.compile(f"{_QUOTED.pattern}|{_ODD_SPACE.pattern}", re.DOTALL)
_OPERATOR = re.compile(r"[;|&<>()`$\n]")


class CommandRefused(ValueError):
    """The line is not one that this pool runs. The message says what is wrong and what to do; it holds no secret."""


def refuse(message: str) -> NoReturn:
    """Raise CommandRefused."""
    raise CommandRefused(message)


def check_characters(text: str) -> None:
    """Refuse control characters and lone surrogates."""
    if _CONTROL.search(text):
        refuse("The line contains a control character. Copy it again as plain text.")


def check_length(text: str, limit: int) -> None:
    """Refuse more than `limit` bytes of UTF-8."""
    if len(text.encode(errors="replace")) > limit:
        refuse(f"The line is too long: at most {limit:,} bytes.")


def without_prompt(line: str) -> str:
    """The line without the shell prompt and the white space around it."""
    return _PROMPT.sub("", line.strip())


def straighten(line: str) -> str:
    """Undo what word processors, web pages and chat programs do to quotes, dashes and spaces."""
    return _LONG_DASH.sub("--", _ODD_SPACE.sub(" ", line.translate(_PLAIN)))


def desktop_words(text: str) -> Iterator[str]:
    """The words of a straightened line, quotes taken off, wrapped lines joined; the machine's own name becomes HERE."""
    text = _HOSTNAME.sub(HERE, text)
    at = _end_of_gap(text, 0)
    while at < len(text):
        word = _WORD.match(text, at) or _refuse_character(text[at])
        yield _QUOTES.sub(lambda quoted: _WRAP.sub("", quoted[1] or quoted[2] or ""), word[0])
        at = _end_of_gap(text, word.end())


def job_words(line: str) -> tuple[str, ...]:
    """The words of a line as `shlex` splits it in POSIX mode. What a shell acts on outside quotes is refused."""
    line = _QUOTED_OR_ODD_SPACE.sub(_join_or_keep, line)
    if operator := _OPERATOR.search(_QUOTED.sub("", line)):
        _refuse_character(operator[0])
    try:
        return tuple(shlex.split(line))
    except ValueError:
        refuse("A quote is opened and never closed, or the line ends in a backslash. Close it, then try again.")


def _end_of_gap(text: str, at: int) -> int:
    gap = _GAP.match(text, at)
    return gap.end() if gap else at


def _join_or_keep(found: re.Match[str]) -> str:
    """A continued line joined, an odd space made plain, anything quoted as it is."""
    if found[0] == "\\\n":
        return ""
    return " " if _ODD_SPACE.fullmatch(found[0]) else found[0]


def _refuse_character(character: str) -> NoReturn:
    if character in "\"'":
        refuse("A quote is opened and never closed. Copy the whole line again.")
    printable = character if character.isprintable() else f"the character U+{ord(character):04X}"
    shown = "a line break" if character == "\n" else printable
    refuse(
        f"The line contains {shown} outside quotes. Give one command only: no shell reads it, so nothing is expanded."
    )
