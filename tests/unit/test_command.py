"""What the command grammar accepts, what it refuses and with which words."""

import pytest

from client.command import (
    Accepts,
    CommandRefused,
    DesktopCommand,
    JobCommand,
    from_parts,
    parse,
    require_accepted,
)

CODE = "4/0AbCdEfGh-IjKlMnOp_QrStUvWxYz0123456789"
URL = "https://remotedesktop.google.com/_/oauthredirect"
GOOGLE = (
    f'DISPLAY= /opt/google/chrome-remote-desktop/start-host --code="{CODE}" --redirect-url="{URL}" --name=$(hostname)'
)
POOL = Accepts(desktop=True, programs=("echo", "sleep", "python3", "python"))
WINDOWS = r"Google\Chrome Remote Desktop\CurrentVersion\remoting_start_host.exe"

PASTED_WITHOUT_PIN = {
    "as Google shows it for Debian": GOOGLE,
    "as Google shows it for PowerShell": (
        f'& "${{Env:PROGRAMFILES(X86)}}\\{WINDOWS}" --code="{CODE}" --redirect-url="{URL}" --name=$Env:COMPUTERNAME'
    ),
    "as Google shows it for cmd": (
        f'"%PROGRAMFILES(X86)%\\{WINDOWS}" --code="{CODE}" --redirect-url="{URL}" --name=%COMPUTERNAME%'
    ),
    "white space around it": f"\n\t  {GOOGLE}  \r\n",
    "a prompt": f"$ {GOOGLE}",
    "a root prompt": f"# {GOOGLE}",
    "a long prompt": f"(base) ada@lab-7:~/work$ {GOOGLE}",
    "a bracketed prompt": f"[ada@lab-7 work]$ {GOOGLE}",
    "curly quotes": GOOGLE.replace('"', "”").replace("=”", "=“"),
    "single quotes": GOOGLE.replace('"', "'"),
    "curly single quotes": GOOGLE.replace('"', "’"),
    "no quotes": GOOGLE.replace('"', ""),
    "non-breaking spaces": GOOGLE.replace(" ", "\u00a0"),
    "zero-width characters": GOOGLE.replace(" --", " \u200b--"),
    "long dashes": GOOGLE.replace("--", "—"),
    "long dash and hyphen": GOOGLE.replace("--", "–-"),
    "non-breaking hyphens": GOOGLE.replace("--redirect-url", "‑‑redirect‑url"),
    "a line break before each switch": GOOGLE.replace(" --", "\n--"),
    "line breaks as Windows writes them": GOOGLE.replace(" --", "\r\n    --"),
    "backslash and line break": GOOGLE.replace(" --", " \\\n  --"),
    "caret and line break": GOOGLE.replace(" --", " ^\n  --"),
    "backtick and line break": GOOGLE.replace(" --", " `\n  --"),
    "backslash after DISPLAY=": GOOGLE.replace("DISPLAY= ", "DISPLAY= \\\n"),
    "wrapped inside the quoted code": GOOGLE.replace("IjKl", "Ij\n  Kl"),
    "wrapped inside the quoted address": GOOGLE.replace("google.com", "google\\\n.com"),
    "values as separate words": f"start-host --code {CODE} --redirect-url {URL} --name lab-7",
    "bare start-host": f"start-host --code={CODE} --redirect-url={URL}",
    "DISPLAY in quotes": GOOGLE.replace("DISPLAY=", 'DISPLAY=""'),
    "a display number": GOOGLE.replace("DISPLAY=", "DISPLAY=:20"),
    "the program in quotes": f'"/opt/google/chrome-remote-desktop/start-host" --code={CODE} --redirect-url={URL}',
    "a display name": GOOGLE.replace("--name=$(hostname)", "--display-name='Ada: lab 7'"),
    "name from a variable": GOOGLE.replace("$(hostname)", '"${HOSTNAME}"'),
    "name in backticks": GOOGLE.replace("$(hostname)", "`hostname`"),
    "part of the name": GOOGLE.replace("$(hostname)", "gpu-$(hostname)"),
    "other order": f'start-host --name="x" --redirect-url="{URL}" --code="{CODE}"',
    "quotes around a whole switch": f'start-host "--code={CODE}" "--redirect-url={URL}"',
}


@pytest.mark.parametrize("line", PASTED_WITHOUT_PIN.values(), ids=PASTED_WITHOUT_PIN)
def test_what_people_paste_becomes_the_same_fields(line: str) -> None:
    assert parse(line, POOL) == DesktopCommand(code=CODE, redirect_url=URL, pin=None)


@pytest.mark.parametrize("pin", ["--pin=123456", "--pin 123456", '--pin="123456"', "\n--pin=123456\n"])
def test_a_pin_is_kept(pin: str) -> None:
    assert parse(f"{GOOGLE} {pin}", POOL) == DesktopCommand(CODE, URL, "123456")


REFUSED_DESKTOP = {
    "a second command": (f"{GOOGLE}; reboot", "contains ;"),
    "a background command": (f"{GOOGLE} & reboot", "contains &"),
    "a pipe": (f"{GOOGLE} | tee log", "contains |"),
    "a redirection": (f"{GOOGLE} > log", "contains >"),
    "an attached operator": (f"start-host --code={CODE};reboot --redirect-url={URL}", "contains ;"),
    "a substitution": (f"start-host --code=$(reboot) --redirect-url={URL}", "contains $"),
    "a substitution in the name": (GOOGLE.replace("$(hostname)", "$(reboot)"), "contains $"),
    "a quoted substitution in the name": (GOOGLE.replace("$(hostname)", '"$(reboot)"'), "--name is not used"),
    "a longer substitution": (GOOGLE.replace("$(hostname)", "$(hostname;reboot)"), "contains $"),
    "the host name as code": (GOOGLE.replace(CODE, "$(hostname)"), "code does not look like"),
    "backticks": (f"start-host --code=`reboot` --redirect-url={URL}", "contains `"),
    "a brace": (f"start-host --code={CODE} --redirect-url={URL} {{a,b}}", "contains {"),
    "a backslash": (f"start-host --code={CODE}\\x --redirect-url={URL}", "contains \\"),
    "an invisible character": (f"start-host \u202e--code={CODE} --redirect-url={URL}", "U+202E"),
    "a second command on its own line": (f"{GOOGLE}\nreboot", "belongs to no switch"),
    "pasted twice": (f"{GOOGLE}\n{GOOGLE}", "belongs to no switch"),
    "a positional argument": (f"{GOOGLE} extra", "belongs to no switch"),
    "an unknown switch": (f"{GOOGLE} --host-id=1", "--host-id is not allowed"),
    "another account": (f"{GOOGLE} --user-name=root", "--user-name is not allowed"),
    "another flow": (f"{GOOGLE} --corp-user=ada", "--corp-user is not allowed"),
    "a repeated switch": (f"{GOOGLE} --code=4/0Other", "--code is there twice"),
    "a repeated PIN": (f"{GOOGLE} --pin=123456 --pin=654321", "--pin is there twice"),
    "no code": (f"start-host --redirect-url={URL}", "--code is missing"),
    "an empty code": (f'start-host --code="" --redirect-url={URL}', "--code has no value"),
    "a code with a space": (f'start-host --code="4/0 A" --redirect-url={URL}', "code does not look like"),
    "a placeholder": (f'start-host --code="<code>" --redirect-url={URL}', "code does not look like"),
    "no address": (f"start-host --code={CODE}", "--redirect-url is missing"),
    "another host": (GOOGLE.replace("remotedesktop.google.com", "evil.example"), "must be on https://remotedesktop"),
    "a longer host": (GOOGLE.replace(".com/", ".com.evil.example/"), "must be on https://remotedesktop"),
    "a user in the address": (GOOGLE.replace("remotedesktop.g", "remotedesktop.google.com@g"), "must be on"),
    "no encryption": (GOOGLE.replace("https", "http"), "must be on https"),
    "a query": (GOOGLE.replace("oauthredirect", "oauthredirect?x=1"), "must be on"),
    "a short PIN": (f"{GOOGLE} --pin=12345", "6 or more digits"),
    "a PIN with a letter": (f"{GOOGLE} --pin=12345a", "6 or more digits"),
    "a PIN in other digits": (f'{GOOGLE} --pin="١٢٣٤٥٦"', "6 or more digits"),
    "an endless PIN": (f"{GOOGLE} --pin={'1' * 65}", "6 or more digits"),
    "a switch without its value": (f"{GOOGLE} --pin", "--pin has no value"),
    "an open quote": (GOOGLE.replace(f'{CODE}"', CODE).replace(f'"{URL}"', URL), "never closed"),
    "a control character": (f"{GOOGLE}\x1b[A", "control character"),
    "a zero byte": (f"{GOOGLE}\0", "control character"),
    "a lone surrogate": (f"{GOOGLE}\ud800", "control character"),
    "too long": (f"start-host --code={CODE} --redirect-url={URL}" + " " * 4096 + "--pin=123456", "too long"),
    "a program in front": (f"sudo {GOOGLE}", "must begin with start-host"),
    "a folder change in front": (f"cd /tmp && {GOOGLE}", "must begin with start-host"),
    "another start-host": (GOOGLE.replace("/opt/google", "/tmp/evil"), "must begin with start-host"),
    "another variable": (GOOGLE.replace("DISPLAY=", "LD_PRELOAD=/tmp/x.so"), "must begin with start-host"),
    "a longer program name": (GOOGLE.replace("start-host ", "start-host-x "), "must begin with start-host"),
    "only the code": (CODE, "only the code"),
    "the address of Google's page": ("https://remotedesktop.google.com/headless", "copy the whole line under Debian"),
    "the same without https": ("remotedesktop.google.com/headless", "copy the whole line under Debian"),
}


@pytest.mark.parametrize(("line", "why"), REFUSED_DESKTOP.values(), ids=REFUSED_DESKTOP)
def test_anything_else_is_refused_with_the_reason(line: str, why: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse(line, POOL)

    assert why in str(refusal.value)
    assert CODE not in str(refusal.value)


JOBS: dict[str, tuple[str, ...]] = {
    "echo hello": ("echo", "hello"),
    "python train.py": ("python", "train.py"),
    "  $ sleep 5 ": ("sleep", "5"),
    "ada@lab-7:~$ sleep 5": ("sleep", "5"),
    "echo 'a  b' \"c d\" e\\ f": ("echo", "a  b", "c d", "e f"),
    "echo ''": ("echo", ""),
    "python3 -c \"print('a; b | c && d > e')\"": ("python3", "-c", "print('a; b | c && d > e')"),
    "python3 -c 'import os\nprint(os.getpid())'": ("python3", "-c", "import os\nprint(os.getpid())"),
    "python3 train.py \\\n  --epochs 3": ("python3", "train.py", "--epochs", "3"),
    "echo\u00a0hello": ("echo", "hello"),
    "echo 'a\u00a0b'": ("echo", "a\u00a0b"),
    "echo a\\;b": ("echo", "a;b"),
    "echo * ~ {a,b} #x": ("echo", "*", "~", "{a,b}", "#x"),
    "echo start-host": ("echo", "start-host"),
}


@pytest.mark.parametrize(("line", "argv"), JOBS.items(), ids=JOBS)
def test_a_job_is_an_argument_vector(line: str, argv: tuple[str, ...]) -> None:
    assert parse(line, POOL) == JobCommand(argv)


REFUSED_JOBS = {
    "": "There is no command",
    " \n ": "There is no command",
    "$ ": "contains $",
    "echo a; ls": "contains ;",
    "echo a | cat": "contains |",
    "echo a && ls": "contains &",
    "echo a &": "contains &",
    "echo a > b": "contains >",
    "echo <(ls)": "contains <",
    "echo $(id)": "contains $",
    "echo $HOME": "contains $",
    "echo `id`": "contains `",
    "echo a\nls": "contains a line break",
    "(echo a)": "contains (",
    "echo 'a": "never closed",
    'echo "a': "never closed",
    "echo a\\": "ends in a backslash",
    "bash -c ls": "bash is not a program that this pool runs. It accepts: the line from Google's page",
    "/bin/echo a": "no path",
    "./echo a": "no path",
    "../echo a": "no path",
    "-c ls": "plain name",
    "FOO=1 python train.py": "no setting before it",
    "'echo hello'": "plain name",
    "echo2": "echo2 is not a program",
    "ECHO a": "ECHO is not a program",
}


@pytest.mark.parametrize(("line", "why"), REFUSED_JOBS.items(), ids=[repr(line) for line in REFUSED_JOBS])
def test_a_job_that_is_no_single_known_program_is_refused(line: str, why: str) -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse(line, POOL)

    assert why in str(refusal.value)


def test_a_job_may_be_100_kb_and_no_longer() -> None:
    longest = "echo " + "x" * (100_000 - 5)

    assert parse(longest, POOL) == JobCommand(("echo", "x" * 99_995))
    with pytest.raises(CommandRefused, match="too long"):
        parse(longest + "x", POOL)


def test_a_pool_without_desktops_says_what_it_accepts() -> None:
    with pytest.raises(CommandRefused, match=r"no desktops\. It accepts: echo, sleep"):
        parse(GOOGLE, Accepts(desktop=False, programs=("echo", "sleep")))


def test_a_pool_of_desktops_runs_no_job() -> None:
    with pytest.raises(CommandRefused, match="echo is not a program that this pool runs"):
        parse("echo hello", Accepts(desktop=True))


def test_a_path_is_refused_even_where_an_admin_lists_it() -> None:
    with pytest.raises(CommandRefused, match="no path"):
        parse("/bin/sh -c ls", Accepts(desktop=False, programs=("/bin/sh",)))


def test_a_first_word_that_may_be_a_secret_is_not_repeated() -> None:
    with pytest.raises(CommandRefused) as refusal:
        parse("1234567890", POOL)

    assert "1234567890" not in str(refusal.value)


@pytest.mark.parametrize(
    ("kind", "public", "secrets"),
    [
        ("desktop", {"redirect_url": URL}, None),
        ("desktop", {"redirect_url": URL}, {"code": None}),
        ("desktop", {"redirect_url": URL}, {"code": "4/0 --evil"}),
        ("desktop", {"redirect_url": "https://evil.example/"}, {"code": CODE}),
        ("desktop", {"redirect_url": URL}, {"code": CODE, "pin": "1"}),
        ("desktop", {"redirect_url": URL}, {"code": CODE, "pin": 123456}),
        ("desktop", {}, {"code": CODE}),
        ("job", {}, None),
        ("job", {"argv": []}, None),
        ("job", {"argv": "echo hello"}, None),
        ("job", {"argv": ["/bin/sh", "-c", "ls"]}, None),
        ("job", {"argv": ["echo", 5]}, None),
        ("job", {"argv": ["echo", "a\0b"]}, None),
        ("hold", {"argv": ["echo"]}, None),
    ],
)
def test_stored_parts_are_checked_again(
    kind: str, public: dict[str, object], secrets: dict[str, object] | None
) -> None:
    with pytest.raises(CommandRefused):
        from_parts(kind, public, secrets)


def test_stored_parts_are_checked_against_what_the_pool_accepts_now() -> None:
    echo = Accepts(desktop=False, programs=("echo",))

    assert from_parts("job", {"argv": ["echo", "a"]}, None, echo) == JobCommand(("echo", "a"))
    with pytest.raises(CommandRefused, match="It accepts: echo"):
        from_parts("job", {"argv": ["python3"]}, None, echo)
    with pytest.raises(CommandRefused, match="no desktops"):
        require_accepted(DesktopCommand(CODE, URL), echo)
