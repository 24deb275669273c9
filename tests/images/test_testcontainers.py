"""The tests' own server may be a container: where there are no local binaries, testcontainers starts one."""

import pytest
from testcontainers.core.config import testcontainers_config

from tests.images.engine import POSTGRES, require_images
from tests.support.database import cloned_database, migrated_template
from tests.support.server import contained_server


async def test_a_container_is_a_server_to_test_on(monkeypatch: pytest.MonkeyPatch) -> None:
    require_images()
    monkeypatch.setattr(testcontainers_config, "ryuk_disabled", True)  # an image of its own, from a registry

    async with (
        contained_server(POSTGRES) as server,
        migrated_template(server) as template,
        cloned_database(server, template, "lablink_contained") as database,
    ):
        await database.vm("vm-1")
        owner = await database.connect()
        await owner.execute("UPDATE vms SET status = 'failed' WHERE hostname = 'vm-1'")

        assert server.version == 15
        assert await owner.fetchval("SELECT status FROM vms") == "failed"
