"""docker/prepare, as an admin types it before the first start, when a name is new, and once a year."""

import ssl
from pathlib import Path

import pytest

from tests.images.engine import run
from tests.images.stack import copied


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A place that was prepared."""
    place = copied(tmp_path / "docker")
    run(place / "prepare")
    return place


def contents(directory: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in (directory / "secrets").iterdir()}


def names_of(certificate: Path) -> set[str]:
    text = run("openssl", "x509", "-noout", "-ext", "subjectAltName", "-in", certificate)
    return {word.rstrip(",").rpartition(":")[2] for word in text.split() if ":" in word and word != "Name:"}


def test_everything_is_closed_to_others_and_the_authoritys_key_to_containers_too(directory: Path) -> None:
    assert (directory / "secrets").stat().st_mode & 0o777 == 0o700
    assert (directory / "secrets" / "authority.key").stat().st_mode & 0o777 == 0o600
    ssl.create_default_context(cafile=directory / "secrets" / "authority.pem")


def test_preparing_again_changes_nothing(directory: Path) -> None:
    before = contents(directory)

    run(directory / "prepare")

    assert contents(directory) == before


def test_a_new_name_is_certified_and_remembered_and_passwords_stay(directory: Path) -> None:
    before = contents(directory)
    run(directory / "prepare", "lab.example.org", "10.0.0.7")
    named = contents(directory)

    run(directory / "prepare")

    assert contents(directory) == named
    assert {name for name in before if before[name] != named[name]} >= {"web.crt", "postgres.crt"}
    assert {name for name in before if before[name] != named[name] and "password" in name} == set()
    for service, name in (("web", "allocator"), ("postgres", "postgres")):
        certified = names_of(directory / "secrets" / f"{service}.crt")
        assert certified == {name, "localhost", "lab.example.org", "10.0.0.7"}
