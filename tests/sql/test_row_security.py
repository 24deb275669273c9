"""The second belt around vms: a machine that was given the table by mistake still sees no row of it."""

import asyncpg
import pytest

from tests.sql.steps import machine, machines
from tests.support.database import Database


async def test_a_machine_that_was_given_the_table_sees_no_row(database: Database, owner: asyncpg.Connection) -> None:
    vm, *_ = await machines(database, 2)
    await owner.execute("GRANT USAGE ON SCHEMA public TO lablink_client; GRANT ALL ON vms TO lablink_client")

    assert await vm.connection.fetch("SELECT * FROM public.vms") == []
    assert await vm.connection.fetch("SELECT * FROM public.vms FOR UPDATE") == []
    for statement in ("UPDATE public.vms SET status = 'failed'", "INSERT INTO public.vms (hostname) VALUES ('evil')"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await vm.connection.execute(statement)


@pytest.mark.parametrize("role", ["lablink", "lablink_app", "lablink_reader"])
async def test_owner_service_and_dashboards_see_every_row(database: Database, role: str) -> None:
    await machines(database, 3)
    connection = await database.connect(role)
    assert await connection.fetchval("SELECT count(*) FROM vms") == 3


async def test_the_verbs_of_a_machine_work_behind_it(database: Database) -> None:
    vm = await machine(database)
    assert (await vm.hello())["status"] == "available"


async def test_an_update_of_all_machines_checks_no_policy(owner: asyncpg.Connection) -> None:
    plan = await owner.fetch("EXPLAIN UPDATE vms SET status = 'failed'")
    assert "Filter" not in str(plan)
