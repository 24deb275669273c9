"""No statement is compiled: that takes longer than any of them."""

from allocator import bootstrap, migrate
from tests.support.database import PASSWORDS, WORKER, cloned_database
from tests.support.server import TestServer

SETTING = """
    SELECT 'jit=off' = ANY (setconfig) FROM pg_db_role_setting
    WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = $1)
"""


async def test_a_database_compiles_no_statements_from_its_migration_on(server: TestServer, template: str) -> None:
    async with cloned_database(server, "template0", f"lablink_compiled_{WORKER}") as own:
        await bootstrap.prepare(server.superuser_dsn, PASSWORDS, own.name)
        await migrate.upgrade(own.dsn("lablink"))
        owner = await own.connect("lablink")
        assert await owner.fetchval(SETTING, own.name) is True
        await migrate.downgrade(own.dsn("lablink"), "8")
        assert await owner.fetchval(SETTING, own.name) is False
