"""The allocator's instance boots for real, as far as that is containers; its directories are below one of ours."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images.engine import AWS, POSTGRES, compose, require_images, run
from tests.images.stack import DOCKER
from tests.support.up import free_port
from tests.terraform.templates import evaluated, rendered

pytestmark = pytest.mark.timeout(1200)

PROJECT = f"lablink-boot-{os.getpid()}"
NAME = "lablink.example.org"
SETTINGS = """\
database=server
database.host={name}
database.port={port}
database.ca_file=/etc/lablink/ca.pem
database.owner.password=file:/run/secrets/owner-password
database.service.password=file:/run/secrets/app-password
server.port={page}
"""


PORTS = """\
services:
  postgres: {{environment: {{PGPORT: "{port}"}}}}
  allocator: {{environment: {{LABLINK_HEALTH_PORT: "{page}"}}}}
"""


class Instance:
    """What cloud-init unpacks and runs, on ports that are free here and without the proxy."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.port, self.page = root, free_port(), free_port()
        self._terraform = environment
        self._given: dict[str, Any] = {
            "images": {"allocator": AWS, "postgres": POSTGRES, "proxy": ""},
            "image": POSTGRES,
            "container": True,
            "certificate": None,
            "database": {"host": NAME, "port": self.port, "master_secret_arn": None},
            "region": "eu-central-1",
            "hostname": NAME,
            "cidr": "10.42.0.0/16",
            "volume": "vol0",
        }
        programs = root / "bin"
        programs.mkdir()
        (programs / "mountpoint").symlink_to("/bin/true")
        if compose() == ["docker-compose"]:
            shutil.copy(Path(__file__).with_name("plugin"), programs / "docker")
        ours = {"ENGINE": str(shutil.which("docker")), "COMPOSE_PROJECT_NAME": PROJECT}
        self._environment = os.environ | ours | {"PATH": f"{programs}:{os.environ['PATH']}"}

    def unpack(self) -> None:
        """Write its files."""
        for place in ("etc/lablink", "var/lib/lablink", "dev", "run"):
            (self.root / place).mkdir(parents=True)
        before, _, proxy = self._evaluated("compose.yaml.tftpl", certificate=False).partition("  proxy:\n")
        services = before + proxy[proxy.index("secrets:") :]
        here = re.sub(r"(- |file: )(/(etc|var/lib)/lablink)", rf"\1{self.root}\2", services)
        self._write("compose.yaml", here)
        self._write("compose.override.yaml", PORTS.format(port=self.port, page=self.page))
        self._write("overrides", SETTINGS.format(name=NAME, port=self.port, page=self.page))
        for file in ("services.yaml", "postgres/pg_ident.conf"):
            shutil.copy(DOCKER / file, self.root / "etc/lablink")

    def boot(self) -> str:
        """Run its boot script; returns the last line on its console."""
        script = self._evaluated("boot.sh.tftpl").replace(":8000", f":{self.page}").replace(":5432", f":{self.port}")
        places = r"(?<![\w.:])(/(etc/lablink|var/lib/lablink|dev/console|run/(ca|server)\.))"
        self._write("boot", re.sub(places, rf"{self.root}\1", script))
        (self.root / "dev/console").touch()
        run("bash", self.root / "etc/lablink/boot", env=self._environment)
        return (self.root / "dev/console").read_text().splitlines()[-1]

    def end(self) -> None:
        """Remove its containers."""
        run(*compose(), "down", "--timeout", "3", cwd=self.root / "etc/lablink", env=self._environment)

    def _evaluated(self, template: str, **changed: Any) -> str:
        return str(evaluated(rendered(f"allocator/{template}", self._given | changed), self.root, self._terraform))

    def _write(self, name: str, text: str) -> None:
        (self.root / "etc/lablink" / name).write_text(text)


@pytest.fixture
def instance(tmp_path: Path, terraform_environment: dict[str, str]) -> Iterator[Instance]:
    """An instance before its first boot."""
    require_images()
    new = Instance(tmp_path, terraform_environment)
    new.unpack()
    yield new
    new.end()


def test_the_allocator_s_instance_boots_and_lets_admins_into_the_database(instance: Instance) -> None:
    assert instance.boot() == "lablink: ready"

    psql = ("psql", "-U", "lablink", "-d", "lablink_db", "-Atc", "SELECT current_user")
    for container in ("postgres", "allocator"):
        assert run("docker", "exec", f"{PROJECT}-{container}", *psql).strip() == "lablink"
    kept = instance.root / "var/lib/lablink/secrets"
    assert {file.name: file.stat().st_mode & 0o777 for file in kept.glob("*-password")} == {
        f"{who}-password": 0o400 for who in ("app", "owner", "superuser")
    }
