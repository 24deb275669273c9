"""The configuration: what may be set, what is refused and in which words."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from allocator.conf_files import override
from allocator.config import ConfigError, load_settings
from tests.support.certificates import Authority

ROOT = Path(__file__).parents[2]


def refusal(*overrides: str) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(overrides)
    return str(refused.value)


def test_every_group_composes_as_it_is_written(tmp_path: Path) -> None:
    ca = Authority.under(tmp_path).file
    server = ("database=server", "database.host=db.example.org", f"database.ca_file={ca}")
    for group in ((), ("pool=local",), server):
        load_settings(group)


def test_settings_are_changed_on_the_command_line() -> None:
    settings = load_settings(["server.port=8123", "pool=local", "log.level=debug"])
    assert settings.server.port == 8123
    assert settings.pool.programs == ("echo", "sleep", "python3")
    assert settings.log.level == "debug"


def test_settings_never_change_afterwards() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_settings().server.port = 1


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ("server.prot=1", "server.prot: there is no such setting; did you mean port?"),
        ("sever.port=1", "sever: there is no such setting; did you mean server?"),
        ("sweeps.colour=red", "sweeps.colour: there is no such setting; sweeps has period_seconds."),
        ("server.port=99999", "server.port: should be less than or equal to 65535, not 99999"),
        ("server.body_limit=65536", "server.body_limit: should be greater than or equal to 308192, not 65536"),
        ("server.port=http", "server.port: should be a valid integer"),
        ("pool.lease_seconds=0", "pool.lease_seconds: should be greater than or equal to 1, not 0"),
        ("pool.time_zone=CET", "pool.time_zone: must be named by a place, as Europe/Berlin"),
        ("pool.time_zone=Europe/Bonn", "pool.time_zone: must be the name of a time zone, as Europe/Berlin"),
        ("pool=huge", "pool: should be default or local, not 'huge'"),
        ("log.level=loud", "log.level: should be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ("database=cloud", "database: should be local or server, not 'cloud'"),
        ("server.public_url=ftp://x", "server.public_url: string should match pattern"),
        ("server.certificate=web.crt", "server.certificate: needs server.public_url=https://NAME"),
        ("pool.desktop=false", "pool.programs: must name a program, because pool.desktop is false"),
        ("transport=pigeon", "transport: should be auto or direct or hub, not 'pigeon'"),
        ("access.domains=[example]", "access.domains.0: string should match pattern"),
        ("pool.programs=[../sh]", "pool.programs.0: string should match pattern"),
        ("server=5", "server: should be a valid dictionary"),
        ("~server.port", "~server.port: cannot be read; write key=value"),
        ("server.port=1,2", "server.port: cannot be read; write key=value, a list as key=[a,b]"),
        ("server.port", "server.port: cannot be read; write key=value"),
        (
            "database.host=127.db.example.org",
            "database.tls: must be verify-full, because 127.db.example.org is not this machine",
        ),
        ("database.host=10.0.0.1", "database.tls: must be verify-full, because 10.0.0.1 is not this machine"),
        (
            "transport.host=db.example.org",
            "transport: database.tls must be verify-full, because db.example.org is not this machine",
        ),
        ("database.pooler_host=10.0.0.2", "database.tls: must be verify-full, because 10.0.0.2 is not this machine"),
        ("database=server", "database.host: is not set; give database.host=…"),
    ],
)
def test_a_wrong_setting_is_refused_by_its_full_name(wrong: str, sentence: str) -> None:
    assert sentence in refusal(wrong)


def test_every_problem_is_told_at_once() -> None:
    assert len(refusal("server.port=0", "pool.queue_seconds=-1", "log.format=xml").splitlines()) == 3


@pytest.mark.parametrize(
    ("ca_file", "sentence"),
    [
        ("null", "must name a file with the certificate authority of the database"),
        ("/nowhere", "must be a file that can be read (No such file or directory), not '/nowhere'"),
        ("/dev/null", "must be a PEM file with the certificate authority of the database, not '/dev/null'"),
        (ROOT / "README.md", "must be a PEM file with the certificate authority of the database"),
    ],
)
def test_a_database_elsewhere_needs_its_certificate_authority(ca_file: object, sentence: str) -> None:
    said = refusal("database=server", "database.host=db.example.org", f"database.ca_file={ca_file}")
    assert said.startswith(f"database.ca_file: {sentence}")


def test_a_password_is_refused_and_not_repeated() -> None:
    for wrong in (
        "database.service.password=hunter2",
        "database.owner.password={hunter2",
        "database.owner.password=[hunter2]",
    ):
        said = refusal(wrong)
        assert "database." in said
        assert "hunter2" not in said


@pytest.mark.parametrize(
    "value",
    [
        "a b",
        "it's",
        "a=b,c",
        "[x]",
        "C:\\dir\\",
        "${nothing}",
        "déjà",
        "null",
        "'",
        "\\'",
        "\\\\",
        "\\${x}",
        "a\\\\'b\\\\c",
    ],
)
def test_any_text_can_be_set_when_it_is_quoted(value: str) -> None:
    assert load_settings([override("transport.host", f"/{value}")]).transport.host == f"/{value}"


def test_a_data_directory_keeps_settings_that_the_command_line_wins_over(tmp_path: Path) -> None:
    (tmp_path / "overrides").write_text("# of this directory\n\npool=local\nserver.port=8123\ndatabase.port=5555\n")
    settings = load_settings(["server.port=9000", "pool=default"], tmp_path)
    assert (settings.server.port, settings.database.port, settings.pool.programs) == (9000, 5555, ())


def test_a_directory_that_keeps_no_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"has no settings in a file overrides \(no such file or directory\)"):
        load_settings([], tmp_path)


def test_a_certificate_needs_its_key() -> None:
    said = refusal("server.public_url=https://lab.example.org", "server.certificate=web.crt")
    assert said.startswith("server.key: must name the file with the private key of server.certificate")


def test_the_url_is_what_people_type() -> None:
    assert load_settings(["server.port=8123"]).server.url == "http://127.0.0.1:8123"
    assert load_settings(["server.host='::1'"]).server.url == "http://[::1]:8000"
    assert load_settings(["server.public_url=https://lab.example.org"]).server.url == "https://lab.example.org"


def test_the_environment_reaches_a_setting_that_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PORT", "8124")
    assert load_settings(["server.port=${oc.env:MY_PORT}"]).server.port == 8124
    assert "MY_PROT" in refusal("server.port=${oc.env:MY_PROT}")


def test_an_installed_wheel_finds_its_configuration_inside(tmp_path: Path) -> None:
    package = tmp_path / "allocator"
    shutil.copytree(ROOT / "conf", package / "conf")
    for name in ("__init__.py", "conf_files.py"):
        shutil.copy(ROOT / "allocator" / name, package)
    program = "import allocator.conf_files as c; print(c.conf_directory())"
    found = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert Path(found.stdout.strip()).resolve() == package / "conf"
