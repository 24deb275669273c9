"""The command grammar against every input that Hypothesis can think of."""

import json
import shlex
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from client.command import Accepts, Command, CommandRefused, DesktopCommand, from_parts, parse, redact, summary

POOL = Accepts(desktop=True, programs=("echo", "sleep", "python3"))
URL = "https://remotedesktop.google.com/_/oauthredirect"

codes = st.text(string.ascii_letters + string.digits + "/_-", min_size=8, max_size=90).map(lambda tail: "4/0" + tail)
pins = st.text("0123456789", min_size=6, max_size=20)
pieces = st.sampled_from(
    [
        *("start-host", "DISPLAY=", "/opt/google/chrome-remote-desktop/start-host", "--code", "--code=", "--pin=", "-"),
        *("--redirect-url=" + URL, "--name=$(hostname)", "4/0Abc", "123456", "echo", "python3", "-c", "$ ", "sudo"),
        *" \n\t\r\"'`$&|;<>(){}[]\\^%=/.,#*?~!",
        *("“", "—", "\u00a0", "\u200b", "\0", "\x1b", "\ud800", "\ufffc", "é"),
    ]
)
words = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=20)
jobs = st.lists(words, max_size=5).map(lambda arguments: shlex.join(["echo", *arguments]))
desktops = st.builds("start-host --code={} --redirect-url={} --pin={}".format, codes, st.just(URL), pins)
garbage = st.one_of(st.text(max_size=200), st.lists(pieces, max_size=25).map("".join), st.lists(pieces).map(" ".join))
lines = garbage | jobs | desktops | st.builds("{}{}".format, desktops | jobs, pieces)


def parsed(line: str) -> Command | None:
    try:
        return parse(line, POOL)
    except CommandRefused:
        return None


@given(lines)
def test_no_line_raises_anything_but_a_refusal(line: str) -> None:
    parsed(line)


@given(lines)
def test_what_is_accepted_survives_storage(line: str) -> None:
    if command := parsed(line):
        public, secrets = json.loads(json.dumps([command.public(), command.secrets()]))
        assert from_parts(command.kind, public, secrets, POOL) == command


@given(lines)
def test_a_job_starts_a_program_of_the_pool_by_its_plain_name(line: str) -> None:
    command = parsed(line)
    if command is not None and not isinstance(command, DesktopCommand):
        assert command.argv[0] in POOL.programs
        assert not any("\0" in argument for argument in command.argv)


@given(st.lists(words, max_size=5))
def test_quoted_arguments_arrive_as_they_were_meant(arguments: list[str]) -> None:
    argv = ("echo", *arguments)
    command = parse(shlex.join(argv), POOL)

    assert not isinstance(command, DesktopCommand)
    assert command.argv == argv


@given(st.lists(words.filter(str.strip), max_size=3), st.sampled_from([*";|&<>()`$\n"]), st.lists(words, max_size=3))
def test_an_operator_outside_quotes_is_always_refused(before: list[str], operator: str, after: list[str]) -> None:
    line = f"echo {shlex.join(before)} {operator} {shlex.join(['x', *after])}"

    with pytest.raises(CommandRefused):
        parse(line, POOL)


@given(codes, st.none() | pins, st.sampled_from(['"', "'", ""]), st.permutations(["code", "redirect-url", "pin"]))
def test_every_well_formed_desktop_line_gives_its_fields(
    code: str, pin: str | None, quote: str, order: list[str]
) -> None:
    values = {"code": code, "redirect-url": URL, "pin": pin}
    switches = [f"--{name}={quote}{values[name]}{quote}" for name in order if values[name]]

    assert parse(" ".join(["start-host", *switches]), POOL) == DesktopCommand(code, URL, pin)


@given(codes, pins, lines, lines)
@example("4/0aaaaaaaa", "000000", "0", "0")
def test_redaction_never_leaves_code_or_pin(code: str, pin: str, before: str, after: str) -> None:
    command = DesktopCommand(code, URL, pin)
    clean = redact(f"{before}{code}{after}{pin}{before}{pin}{code}", command)

    assert code not in clean
    assert pin not in clean


@given(codes, pins, st.sampled_from(["; ls", " --evil=1", " extra", " --pin=1", ' "', " --name", " --redirect-url=x"]))
def test_neither_refusal_nor_repr_nor_summary_holds_a_secret(code: str, pin: str, spoiled: str) -> None:
    command = DesktopCommand(code, URL, pin)
    with pytest.raises(CommandRefused) as refusal:
        parse(f"start-host --code={code} --redirect-url={URL} --pin={pin}{spoiled}", POOL)

    for shown in (str(refusal.value), repr(command), summary(command)):
        assert code not in shown
        assert pin not in shown


@pytest.mark.parametrize(
    "unit",
    ['"', "'", "\\", '\\"', "a@", "(a) ", "--code='", " \\\n", "\\ ", "$(", "`", "\u00a0", "—", "& ", "PS C:", "a"],
)
@pytest.mark.parametrize("head", ["", "echo ", "start-host ", "DISPLAY=", "a@", "$ "])
@pytest.mark.timeout(60)
def test_no_long_line_takes_for_ever(head: str, unit: str) -> None:
    line = (head + unit * 100_000)[:100_000]

    parsed(line)
