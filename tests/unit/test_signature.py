"""Requests are signed as AWS's own test suite has them (aws-sig-v4-test-suite, whose keys are the documentation's)."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from client.signature import Call, Keys, signed

KEYS = Keys("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
NOW = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
HOST = "example.amazonaws.com"


@pytest.mark.parametrize(
    ("call", "names", "signature"),
    [
        (
            Call(HOST, method="GET"),
            "host;x-amz-date",
            "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
        ),
        (
            Call(HOST),
            "host;x-amz-date",
            "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
        ),
        (
            Call(HOST, headers={"My-Header1": "VALUE1"}),
            "host;my-header1;x-amz-date",
            "cdbc9802e29d2942e5e10b5bccfdd67c5f22c7c4e8ae67b53629efa58b974b7d",
        ),
        (
            Call(HOST, b"Param1=value1", {"Content-Type": "application/x-www-form-urlencoded"}),
            "content-type;host;x-amz-date",
            "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
        ),
    ],
    ids=["get-vanilla", "post-vanilla", "post-header-value-case", "post-x-www-form-urlencoded"],
)
def test_a_request_is_signed_as_aws_signs_it(call: Call, names: str, signature: str) -> None:
    assert signed(call, KEYS, "us-east-1", "service", NOW)["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        f"SignedHeaders={names}, Signature={signature}"
    )


def test_the_session_token_of_a_role_is_signed_too() -> None:
    sent = signed(Call(HOST), replace(KEYS, session_token="of the role"), "us-east-1", "service", NOW)

    assert sent["x-amz-security-token"] == "of the role"
    assert "SignedHeaders=host;x-amz-date;x-amz-security-token," in sent["authorization"]


def test_keys_show_no_secret() -> None:
    assert repr(replace(KEYS, session_token="secret")) == "Keys(access_key='AKIDEXAMPLE')"
