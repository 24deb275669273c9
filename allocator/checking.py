"""Checks what people send before anything is done with it; every mistake is told at once, in words that help."""

import unicodedata
from collections.abc import Sequence

from allocator.errors import InvalidRequest
from client.command import Accepts, Command, CommandRefused, parse

EMAIL_LENGTH = 254
LOCAL_LENGTH = 64
KEY_LENGTH = 255

# Letters of no address that anybody has, and with which one address could look like another.
ODD_CATEGORIES = ("Cc", "Cf", "Cs", "Co", "Cn", "Zs", "Zl", "Zp")
ODD_LETTERS = frozenset('"(),:;<>[]\\')


def checked(email: str, domains: Sequence[str], line: str | None, accepts: Accepts) -> tuple[str, Command | None]:
    """The address, at one of the domains if there are any, and the command; None for a desktop whose line comes later.

    Raises InvalidRequest, with what is wrong with each of the two.
    """
    wrong: dict[str, str] = {}
    address = tidy_email(email)
    if complaint := email_complaint(address) or domain_complaint(address, domains):
        wrong["email"] = complaint
    command = None
    try:
        command = parse(line or "", accepts) if line is not None or not accepts.desktop else None
    except CommandRefused as refused:
        wrong["crd_command"] = str(refused)
    if wrong:
        raise InvalidRequest(fields=wrong)
    return address, command


def checked_line(line: str, accepts: Accepts) -> Command:
    """The command of a line. Raises InvalidRequest."""
    try:
        return parse(line, accepts)
    except CommandRefused as refused:
        raise InvalidRequest(fields={"crd_command": str(refused)}) from None


def tidy_email(text: str) -> str:
    """The address without spaces around it, its domain in lower case; what is before the @ stays as it was typed."""
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    return local + at + domain.lower()


def email_complaint(address: str) -> str | None:
    """What is wrong with an address, if anything is."""
    local, at, domain = address.partition("@")
    if not address:
        return "Your e-mail address is missing."
    if len(address) > EMAIL_LENGTH:
        return f"An e-mail address has at most {EMAIL_LENGTH} characters."
    if any(unicodedata.category(letter) in ODD_CATEGORIES or letter in ODD_LETTERS for letter in address):
        return "An e-mail address has no spaces, quotes, brackets, commas or invisible characters."
    if not at or "@" in domain:
        return "An e-mail address has one @, as in name@example.org."
    if len(local) > LOCAL_LENGTH or not all(local.split(".")):
        return "The part before the @ is not right."
    if "." not in domain or not all(domain.split(".")):
        return "The part after the @ must be a domain, as in name@example.org."
    return None


def domain_complaint(address: str, domains: Sequence[str]) -> str | None:
    """What is wrong with the domain of an address, if only some may ask."""
    if not domains or address.rpartition("@")[2] in domains:
        return None
    return f"Machines are lent to addresses at {' or '.join(domains)}."


def checked_key(key: str) -> str:
    """An Idempotency-Key as it was sent. Raises InvalidRequest."""
    if 0 < len(key) <= KEY_LENGTH and key.isascii() and key.isprintable():
        return key
    complaint = f"It must be 1 to {KEY_LENGTH} printable ASCII characters; a random UUID is best."
    raise InvalidRequest(fields={"Idempotency-Key": complaint})
