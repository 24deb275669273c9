"""Where a command's code and PIN show, and where they do not."""

from allocator.tokens import pin_of
from client.command import DesktopCommand, JobCommand, redact, summary

CODE = "4/0AbCdEfGh-IjKlMnOp_QrStUvWxYz0123456789"
URL = "https://remotedesktop.google.com/_/oauthredirect"


def test_code_and_pin_are_not_in_the_repr() -> None:
    shown = repr(DesktopCommand(CODE, URL, "739182"))

    assert CODE not in shown
    assert "739182" not in shown


def test_the_summary_hides_code_and_pin() -> None:
    assert summary(DesktopCommand(CODE, URL, "739182")) == f"start-host --code=*** --redirect-url={URL} --pin=***"
    assert summary(DesktopCommand(CODE, URL)) == f"start-host --code=*** --redirect-url={URL}"
    assert summary(JobCommand(("echo", "a b"))) == "echo 'a b'"


def test_the_public_part_holds_no_secret() -> None:
    command = DesktopCommand(CODE, URL, "739182")

    assert command.public() == {"redirect_url": URL}
    assert command.secrets() == {"code": CODE, "pin": "739182"}
    assert DesktopCommand(CODE, URL).secrets() == {"code": CODE}
    assert JobCommand(("echo", "a")).public() == {"argv": ["echo", "a"]}
    assert JobCommand(("echo", "a")).secrets() is None


def test_redaction_takes_the_secrets_and_whatever_looks_like_one() -> None:
    command = DesktopCommand(CODE, URL, "739182")
    output = f"code {CODE} and {CODE.replace('/', '%2F')}, pin 739182; --code='4/0 x' --pin=42 4/0AnotherPersonsCodeXYZ"

    assert redact(output, command) == "code *** and ***, pin ***; --code=*** --pin=*** ***"
    assert redact("--code=abc echo", None) == "--code=*** echo"
    assert redact("nothing to hide", JobCommand(("echo",))) == "nothing to hide"


def test_a_pin_made_from_a_token_is_valid_and_always_the_same() -> None:
    assert pin_of("token") == pin_of("token") != pin_of("another")
    assert DesktopCommand(CODE, URL, pin_of("token")).pin == pin_of("token")
