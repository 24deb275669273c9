"""The closed grammar of `crd_command`: what a person pastes becomes fields, and nothing else of the line survives.

Where the facts come from: Chromium, `remoting/host/setup/start_host_main.cc` (switches `code`, `redirect-url`, `name`,
since M125 `display-name`, `pin`; several more that are refused here), `pin_validator.cc` (a PIN is six or more ASCII
digits) and the lines that https://remotedesktop.google.com/headless shows for Debian, PowerShell and cmd.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, NoReturn
from urllib.parse import quote

from client.paste import (
    HERE,
    CommandRefused,
    check_characters,
    check_length,
    desktop_words,
    job_words,
    refuse,
    straighten,
    without_prompt,
)

__all__ = [
    "Accepts",
    "Command",
    "CommandRefused",
    "DesktopCommand",
    "JobCommand",
    "from_parts",
    "parse",
    "redact",
    "require_accepted",
    "summary",
]

DESKTOP_BYTES = 4096
JOB_BYTES = 100_000
HIDDEN = "***"

_PAGE = "https://remotedesktop.google.com/headless"
_SWITCHES = ("code", "redirect-url", "name", "display-name", "pin")

_CODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9/_.~-]{1,1023}")
_REDIRECT_URL = re.compile(r"https://remotedesktop\.google\.com/[A-Za-z0-9/_.-]{0,200}")
_PIN = re.compile(r"[0-9]{6,64}")
_NAME = re.compile(rf"[\w .,:@'+{HERE}-]{{0,200}}")
_PROGRAM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,99}")
_SWITCH = re.compile(r"--?([a-z][a-z-]{0,40})(?:=(.*))?", re.DOTALL)
_HEAD = re.compile(
    r"""(?:&\s*)?(?:DISPLAY=(?:""|''|:\d{1,3})?\s+(?:\\\s+)?)?
    (?P<quote>["']?)(?:
      (?:/opt/google/chrome-remote-desktop/)?start-host
      |(?:(?:\$\{Env:ProgramFiles\(x86\)\}|%ProgramFiles\(x86\)%|[A-Z]:\\Program\ Files\ \(x86\))
         \\Google\\Chrome\ Remote\ Desktop\\CurrentVersion\\)?remoting_start_host(?:\.exe)?
    )(?P=quote)(?=\s|\Z)""",
    re.VERBOSE | re.IGNORECASE,
)
_LOOKS_SECRET = re.compile(r"""(--?(?:code|pin)=)(?:"[^"]*"|'[^']*'|\S+)|\b4/0[\w-]{16,}""")


@dataclass(frozen=True, slots=True)
class Accepts:
    """What a pool runs: desktops (Chrome Remote Desktop), and jobs whose program is one of these plain names."""

    desktop: bool
    programs: tuple[str, ...] = ()

    def __str__(self) -> str:
        desktop = ["the line from Google's page (start-host …)"] if self.desktop else []
        return ", ".join([*desktop, *self.programs]) or "nothing"


@dataclass(frozen=True, slots=True)
class DesktopCommand:
    """Register the machine with Chrome Remote Desktop. The code works once; whoever connects is asked for the PIN."""

    kind: ClassVar[Literal["desktop"]] = "desktop"
    code: str = field(repr=False)
    redirect_url: str
    pin: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _require(_CODE, self.code, f"The code does not look like Google's (4/0…). Copy the line from {_PAGE} again.")
        wrong_host = (
            "--redirect-url must be on https://remotedesktop.google.com/: copy the line from Google's page again."
        )
        _require(_REDIRECT_URL, self.redirect_url, wrong_host)
        if self.pin is not None:
            _require(_PIN, self.pin, "The PIN must be 6 or more digits (at most 64), for example --pin=123456.")

    def public(self) -> dict[str, object]:
        """The part that may be stored and shown."""
        return {"redirect_url": self.redirect_url}

    def secrets(self) -> dict[str, str] | None:
        """The part that must be deleted once it is delivered."""
        return {"code": self.code} | ({"pin": self.pin} if self.pin else {})


@dataclass(frozen=True, slots=True)
class JobCommand:
    """Run a program of the pool's list: an argument vector, never a shell."""

    kind: ClassVar[Literal["job"]] = "job"
    argv: tuple[str, ...]

    def __post_init__(self) -> None:
        program = self.argv[0] if self.argv else ""
        _require(
            _PROGRAM, program, "A command starts with the plain name of a program: no path and no setting before it."
        )
        text = "".join(self.argv)
        check_length(text, JOB_BYTES)
        check_characters(text)

    def public(self) -> dict[str, object]:
        """The part that may be stored and shown: all of it."""
        return {"argv": list(self.argv)}

    def secrets(self) -> dict[str, str] | None:
        """A job has none."""
        return None


Command = DesktopCommand | JobCommand


def parse(line: str, accepts: Accepts) -> Command:
    """The command in a pasted line. Raises CommandRefused, and nothing else, for everything the pool does not run."""
    check_length(line, JOB_BYTES)
    check_characters(line)
    line = line.replace("\r\n", "\n").replace("\r", "\n")
    tidy = without_prompt(straighten(line))
    if head := _HEAD.match(tidy):
        check_length(line, DESKTOP_BYTES)
        return _desktop(tidy[head.end() :], accepts)
    return _job(without_prompt(line), accepts)


def from_parts(
    kind: str, public: Mapping[str, object], secrets: Mapping[str, object] | None, accepts: Accepts | None = None
) -> Command:
    """The command that `kind`, `public()` and `secrets()` were taken from, checked again: what stored it may lie."""
    command: Command
    if kind == "desktop":
        hidden = {"pin": None} | dict(secrets or {})
        pin = None if hidden["pin"] is None else _text(hidden["pin"])
        command = DesktopCommand(_text(hidden.get("code")), _text(public.get("redirect_url")), pin)
    else:
        argv = public.get("argv") if kind == "job" else None
        command = JobCommand(tuple(map(_text, argv)) if isinstance(argv, list | tuple) else ())
    if accepts is not None:
        require_accepted(command, accepts)
    return command


def require_accepted(command: Command, accepts: Accepts) -> None:
    """Raise CommandRefused unless the pool runs this command."""
    if isinstance(command, JobCommand):
        if command.argv[0] not in accepts.programs:
            _refuse_program(command.argv[0], accepts)
    elif not accepts.desktop:
        refuse(f"This pool gives no desktops. It accepts: {accepts}.")


def summary(command: Command) -> str:
    """The line as it may be stored, logged and shown: without code and PIN."""
    if isinstance(command, JobCommand):
        return shlex.join(command.argv)
    pin = f" --pin={HIDDEN}" if command.pin else ""
    return f"start-host --code={HIDDEN} --redirect-url={command.redirect_url}{pin}"


def redact(text: str, command: Command | None) -> str:
    """`text` without the command's code and PIN, and without anything that looks like one."""
    secrets = command.secrets() if command else None
    for secret in sorted((secrets or {}).values(), key=len, reverse=True):
        text = text.replace(secret, HIDDEN).replace(quote(secret, safe=""), HIDDEN)
    return _LOOKS_SECRET.sub(rf"\1{HIDDEN}", text)


def _desktop(switches: str, accepts: Accepts) -> DesktopCommand:
    if not accepts.desktop:
        refuse(f"This pool gives no desktops. It accepts: {accepts}.")
    found = _read_switches(desktop_words(switches))
    for name in ("code", "redirect-url"):
        if name not in found:
            refuse(f"--{name} is missing. Copy the whole line from {_PAGE} (Debian Linux) and paste it here.")
    for name in ("name", "display-name"):
        _require(_NAME, found.get(name, ""), f"--{name} is not used here (the machine has its own name): leave it out.")
    return DesktopCommand(found["code"], found["redirect-url"], found.get("pin"))


def _read_switches(words: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    words = iter(words)
    for word in words:
        switch = _SWITCH.fullmatch(word)
        if switch is None:
            refuse("A word in the line belongs to no switch. Paste one start-host line, once, and nothing else.")
        name, value = switch[1], switch[2]
        if name not in _SWITCHES:
            refuse(f"--{name} is not allowed here: leave it out. Allowed are --{', --'.join(_SWITCHES)}.")
        if name in found:
            refuse(f"--{name} is there twice. Paste the line once.")
        found[name] = value or next(words, "")
        if not found[name] or found[name].startswith("-"):
            refuse(f"--{name} has no value. Copy the whole line from {_PAGE} again.")
    return found


def _job(line: str, accepts: Accepts) -> JobCommand:
    if not line:
        refuse(f"There is no command. This pool accepts: {accepts}.")
    if line.split()[0] not in accepts.programs:
        _explain_start_host(line, accepts)
    command = JobCommand(job_words(line))
    require_accepted(command, accepts)
    return command


def _explain_start_host(line: str, accepts: Accepts) -> None:
    """Refuse a line that was nearly Google's, with words that help more than "not accepted"."""
    if re.match(r"[a-z]+://|remotedesktop\.google\.com", line, re.IGNORECASE):
        copy = f"Open {_PAGE}, go on to Authorize, and copy the whole line under Debian Linux."
        refuse(f"That is the address of a page. {copy if accepts.desktop else f'This pool accepts: {accepts}.'}")
    if re.search(r"start[-_]host", line):
        refuse(f"The line must begin with start-host as on {_PAGE}, with no other program or folder before it.")
    if line.startswith("4/"):
        refuse(f"That is only the code. Copy the whole line from {_PAGE} and paste it here.")


def _refuse_program(program: str, accepts: Accepts) -> NoReturn:
    shown = program if re.fullmatch(r"[A-Za-z][A-Za-z0-9_.+-]{0,39}", program) else "The first word"
    refuse(f"{shown} is not a program that this pool runs. It accepts: {accepts}.")


def _require(form: re.Pattern[str], value: str, message: str) -> None:
    if form.fullmatch(value) is None:
        refuse(message)


def _text(value: object) -> str:
    return value if isinstance(value, str) else refuse("The stored command is incomplete. Ask again with a fresh line.")
