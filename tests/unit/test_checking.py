"""Addresses and keys, without any input and output."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from allocator.checking import EMAIL_LENGTH, checked, checked_key, email_complaint, tidy_email
from allocator.errors import InvalidRequest
from client.command import Accepts

ACCEPTS = Accepts(desktop=True, programs=("echo",))


@given(st.text())
def test_any_text_is_an_address_or_gets_a_complaint(text: str) -> None:
    address = tidy_email(text)

    if email_complaint(address) is None:
        assert address.count("@") == 1 and len(address) <= EMAIL_LENGTH and address.isprintable()
        assert tidy_email(address) == address


@given(st.emails())
def test_real_addresses_are_accepted_unless_they_are_quoted(address: str) -> None:
    if len(address.partition("@")[0]) <= 64 and "." in address.partition("@")[2]:
        assert email_complaint(tidy_email(address)) is None


def test_both_mistakes_are_told_at_once() -> None:
    with pytest.raises(InvalidRequest) as refused:
        checked("nobody", (), "rm -rf /", ACCEPTS)

    assert refused.value.fields.keys() == {"email", "crd_command"}


def test_the_domain_is_in_lower_case_and_the_rest_as_it_was() -> None:
    address, command = checked(" Ada@Example.ORG ", (), "echo hi", ACCEPTS)

    assert command
    assert (address, command.public()) == ("Ada@example.org", {"argv": ["echo", "hi"]})


def test_a_desktop_may_be_asked_for_without_its_line_where_there_are_desktops() -> None:
    assert checked("ada@example.org", (), None, Accepts(desktop=True, programs=())) == ("ada@example.org", None)
    with pytest.raises(InvalidRequest):
        checked("ada@example.org", (), None, Accepts(desktop=False, programs=("echo",)))


@pytest.mark.parametrize("key", ["", "x" * 256, "ü", "a\tb", "a\x00"])
def test_a_key_is_short_printable_ascii(key: str) -> None:
    with pytest.raises(InvalidRequest):
        checked_key(key)


def test_where_only_some_domains_may_ask_the_others_are_told_which() -> None:
    domains = ("example.org", "lab.example.net")
    assert checked("ada@EXAMPLE.org", domains, "echo hi", ACCEPTS)[0] == "ada@example.org"
    with pytest.raises(InvalidRequest) as refused:
        checked("ada@sub.example.org", domains, "echo hi", ACCEPTS)
    assert refused.value.fields == {"email": "Machines are lent to addresses at example.org or lab.example.net."}
