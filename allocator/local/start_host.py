#!/usr/bin/env python3
"""A STAND-IN for Google's `start-host`, so that `lablink up` works on a laptop. It calls nobody and shows no desktop.

Switches, prompts, messages and exit codes are those of Chromium's `remoting/host/setup/start_host_main.cc`,
`pin_validator.cc` and `host_starter_oauth_helper.cc`. A code works once: each used one leaves a file, named by its
SHA-256, in the directory $LABLINK_STAND_IN_CODES or `codes` beside this script. Some codes fail as Google's do:

    4/expired…   OAuth error          4/offline…   network error        4/slow…    three seconds, then it works
    4/denied…    Permission denied    4/broken…    Registration error   4/stuck…   never comes back
"""

import contextlib
import hashlib
import json
import os
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

NOTICE = "This is LabLink's stand-in for start-host: no desktop is shared."
INVALID_PIN = "Please provide a numeric PIN consisting of at least six digits."
SLOW_SECONDS = 3
FAILURES = {
    "4/expired": ("OAuth error", "Failed to exchange the authorization_code due to an OAuth error."),
    "4/offline": ("network error", "Failed to exchange the authorization_code due to a network error: 0."),
    "4/denied": ("Permission denied", "The account may not register a host."),
    "4/broken": ("Registration error", "No host id returned by the Directory."),
}


def main(arguments: list[str]) -> int:
    """What start-host does with these arguments. Returns its exit code."""
    switches, others = split(arguments)
    if others or switches.keys() & {"help", "h", "?"} or not (switches.get("code") and switches.get("redirect-url")):
        return help_and_fail()
    name = switches.get("display-name") or switches.get("name") or ask("Enter a name for this computer: ")
    pin = switches.get("pin")
    if pin and not is_pin(pin):
        print(INVALID_PIN, file=sys.stderr)
        return help_and_fail()
    print(NOTICE, flush=True)
    return start(switches["code"], name, pin or ask_pin())


def split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Switches and other words as Chromium's CommandLine tells them apart: `--name value` is a switch and a word."""
    words = [word for word in arguments if not word.startswith("-") or word == "-"]
    pairs = [word.lstrip("-").partition("=") for word in arguments if word not in words]
    return {name: value for name, _, value in pairs}, words


def ask_pin() -> str:
    """Prompt until the same valid PIN came twice: at end of file for ever, as the real one does."""
    while True:
        pin = ask("Enter a PIN of at least six digits: ", echo=False)
        if not is_pin(pin):
            print(INVALID_PIN, flush=True)
        elif ask("Enter the same PIN again: ", echo=False) == pin:
            return pin
        else:
            print("You entered different PINs.", flush=True)


def ask(prompt: str, *, echo: bool = True) -> str:
    """One line of standard input, without its end; empty at end of file."""
    print(prompt, end="", flush=True)
    with contextlib.nullcontext() if echo else silence():
        line = sys.stdin.readline(1024)
    return line.rstrip("\n")


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Show nothing of what is typed, where somebody types."""
    if not sys.stdin.isatty():
        yield
    else:
        shown = termios.tcgetattr(sys.stdin)
        hidden = [*shown[:3], shown[3] & ~termios.ECHO, *shown[4:]]
        termios.tcsetattr(sys.stdin, termios.TCSANOW, hidden)
        try:
            yield
        finally:
            termios.tcsetattr(sys.stdin, termios.TCSANOW, shown)
    print(flush=True)


def is_pin(text: str) -> bool:
    """Six or more ASCII digits."""
    return len(text) >= 6 and text.isascii() and text.isdigit()


def start(code: str, name: str, pin: str) -> int:
    """Exchange the code and register the host, as far as a stand-in can. Returns the exit code."""
    behaviour = next((failure for prefix, failure in FAILURES.items() if code.startswith(prefix)), None)
    if code.startswith("4/stuck"):
        stay()
    if code.startswith("4/slow"):
        time.sleep(SLOW_SECONDS)
    if behaviour is None and not first_use(code):
        behaviour = FAILURES["4/expired"]
    if behaviour is not None:
        summary, detail = behaviour
        print(f"{detail}\nCouldn't start host: {summary}.", file=sys.stderr)
        return 1
    configure(name, pin)
    print("Host started successfully.")
    return 0


def stay() -> NoReturn:
    """Never come back."""
    while True:
        time.sleep(3600)


def first_use(code: str) -> bool:
    """Whether nobody has used the code before; from now on somebody has."""
    used = Path(os.environ.get("LABLINK_STAND_IN_CODES") or Path(__file__).with_name("codes"))
    used.mkdir(exist_ok=True)
    try:
        (used / hashlib.sha256(code.encode()).hexdigest()).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def configure(name: str, pin: str) -> None:
    """Leave a host's configuration where the real one does, so that there is something to wipe."""
    directory = Path.home() / ".config" / "chrome-remote-desktop"
    directory.mkdir(parents=True, exist_ok=True)
    secret_hash = hashlib.sha256(os.urandom(16) + pin.encode()).hexdigest()
    (directory / "host#stand-in.json").write_text(json.dumps({"host_name": name, "host_secret_hash": secret_hash}))


def help_and_fail() -> int:
    """How it is called, on standard error."""
    print(
        f"{NOTICE}\nPlease visit https://remotedesktop.google.com/headless for the arguments.\n\n"
        "Example usage:\nstart-host --code=<auth code> --redirect-url=<redirect url> "
        "[--display-name=<host display name>] [--pin=<6+ digit PIN>]\n",
        file=sys.stderr,
    )
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
