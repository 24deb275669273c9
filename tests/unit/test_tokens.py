"""Tokens: the same again for the same key and salt, and nothing else like them."""

import re

from allocator.tokens import key_sha256, lease_token, new_key, new_salt, request_sha256, sha256


def test_the_same_key_and_salt_make_the_same_token() -> None:
    salt = new_salt()

    assert lease_token("key", salt) == lease_token("key", salt)
    assert len({lease_token("key", salt), lease_token("other", salt), lease_token("key", new_salt())}) == 3


def test_a_token_fits_into_a_header_a_cookie_and_a_fragment() -> None:
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", lease_token(new_key(), new_salt())) for _ in range(50))


def test_keys_belong_to_people_whatever_the_case_of_their_address() -> None:
    assert key_sha256("ada@example.org", "key") == key_sha256("ADA@example.org", "key")
    assert key_sha256("ada@example.org", "key") != key_sha256("bob@example.org", "key")


def test_what_is_stored_of_a_request_says_nothing_without_its_key() -> None:
    line = "start-host --pin=123456"

    assert request_sha256("key", "ada@example.org", line) == request_sha256("key", "ada@example.org", line)
    assert request_sha256("key", "ada@example.org", line) != request_sha256("other", "ada@example.org", line)
    assert request_sha256("key", "a", "b") != request_sha256("key", "ab", "")


def test_any_token_has_a_hash_to_look_up() -> None:
    assert len(sha256("")) == len(sha256("ÿ\U0001f600")) == 32
