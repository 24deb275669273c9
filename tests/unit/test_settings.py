"""What a machine is told is checked, and a mistake is named."""

import json
from pathlib import Path

import pytest

from client.settings import START_HOST, SettingsError, load_credential, load_settings


def written(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings(tmp_path / "settings.json", {})
    assert (settings.allocator_url, settings.start_host) == (None, START_HOST)


def test_the_file_is_read_and_the_environment_wins(tmp_path: Path) -> None:
    path = written(tmp_path / "settings.json", {"allocator_url": "https://a", "session_user": "lablink"})
    settings = load_settings(path, {"LABLINK_ALLOCATOR_URL": "https://b", "LABLINK_OTHER": "x"})
    assert (settings.allocator_url, settings.session_user) == ("https://b", "lablink")


def test_a_token_file_is_beside_the_settings_unless_its_whole_path_is_given(tmp_path: Path) -> None:
    for given, meant in (("token", tmp_path / "token"), ("/etc/token", Path("/etc/token"))):
        path = written(tmp_path / "settings.json", {"join_token_file": given})
        assert load_settings(path, {}).join_token_file == meant


def test_null_means_the_default(tmp_path: Path) -> None:
    path = written(tmp_path / "settings.json", {"start_host": None, "session_user": None, "join_token_file": None})
    assert load_settings(path, {}).start_host == START_HOST


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"alocator_url": "https://a"}, "no setting 'alocator_url'"),
        ({"session_user": 7}, "session_user must be text"),
        ("{", "cannot be read"),
        ("[]", "JSON object"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, content: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_settings(written(tmp_path / "settings.json", content), {})


@pytest.mark.parametrize("content", [{}, {"vm_id": 1}, {"database": {}}, {"database": None}, "", "null"])
def test_a_credential_that_enrolment_did_not_write_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(SettingsError):
        load_credential(written(tmp_path / "credential.json", content))
