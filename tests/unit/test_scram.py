"""The verifier is what PostgreSQL would have made of the password."""

from base64 import b64decode

from client.scram import new_password, verifier


def test_the_verifier_is_the_one_of_the_published_example() -> None:
    # RFC 7677, section 3: user "user", password "pencil", with this salt and iteration count; the server signature and
    # client proof there follow from these two keys.
    salt = b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
    assert verifier("pencil", salt, 4096) == (
        "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$"
        "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
    )


def test_every_password_and_salt_is_new() -> None:
    assert len({new_password() for _ in range(50)}) == 50
    assert len({verifier("same") for _ in range(5)}) == 5


def test_a_password_has_256_bits() -> None:
    assert len(bytes.fromhex(new_password())) == 32
