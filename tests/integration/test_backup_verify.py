"""What `lablink db backup verify` notices of a backup: damage, forgery, and what is not as its manifest says."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from allocator.operations import running
from allocator.upkeep import UpkeepFailed
from allocator.upkeep.backup import back_up
from allocator.upkeep.reach import connect
from allocator.upkeep.rehearse import verify
from allocator.upkeep.storage import Directory
from tests.sql.history import happen, seal, tamper
from tests.support.database import Database
from tests.support.upkeep import ignore


@pytest.mark.parametrize("spoil", ["flip", "cut"])
async def test_a_damaged_backup_is_noticed_before_it_is_used(database: Database, tmp_path: Path, spoil: str) -> None:
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    dump = tmp_path / f"{made.name}.dump"
    content = bytearray(dump.read_bytes())
    content[-1] ^= 1
    dump.write_bytes(content if spoil == "flip" else content[:-1])

    with pytest.raises(UpkeepFailed, match="is damaged"):
        await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore)


async def test_another_file_in_the_place_of_a_backup_is_not_used_though_its_checksum_fits(
    database: Database, tmp_path: Path
) -> None:
    dsn, storage = database.dsn("lablink"), Directory(tmp_path)
    async with running(lambda: connect(dsn), "backup", "a test") as operation:
        made = await back_up(dsn, storage, ignore)
        operation.result = made.summary()
    dump, manifest = tmp_path / f"{made.name}.dump", tmp_path / f"{made.name}.json"
    dump.write_bytes(forged := dump.read_bytes() + b"more")
    manifest.write_bytes(replace(made, size=len(forged), sha256=hashlib.sha256(forged).hexdigest()).manifest())

    with pytest.raises(UpkeepFailed, match="is not the one that this database made"):
        await verify(dsn, storage, made.name, ignore)


async def test_a_manifest_may_not_say_what_is_asked(database: Database, tmp_path: Path) -> None:
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    asks = replace(made, rows=made.rows | {"(SELECT pg_terminate_backend(pg_backend_pid()))": 1})
    (tmp_path / f"{made.name}.json").write_bytes(asks.manifest())

    shown = await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore)

    assert shown.problems == ["(SELECT pg_terminate_backend(pg_backend_pid())) has 0 rows instead of 1"]


async def test_verify_says_what_is_not_as_the_manifest_says(database: Database, tmp_path: Path) -> None:
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    manifest = tmp_path / f"{made.name}.json"
    manifest.write_text(manifest.read_text().replace('"public.pools": 1', '"public.pools": 2'))

    shown = await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore)

    assert shown.problems == ["public.pools has 1 rows instead of 2"]


async def test_verify_compares_the_history_with_the_head_that_the_manifest_keeps(
    database: Database, tmp_path: Path
) -> None:
    owner, service = await database.connect(), await database.connect("lablink_app")
    (event,) = await happen(owner)
    await seal(service)
    head = await owner.fetchval("SELECT seal || ':' || sha256 FROM history_head()")
    well = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    await tamper(database, f"UPDATE events SET kind = 'x' WHERE id = {event}")
    spoilt = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    shown = [await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore) for made in (well, spoilt)]

    assert well.head == spoilt.head == head
    assert [each.problems for each in shown] == [[], [f"event {event} was changed after it was sealed (seal 1)"]]


async def test_verify_says_where_the_schema_is_not_that_of_the_code(database: Database, tmp_path: Path) -> None:
    owner = await database.connect()
    await owner.execute("DROP INDEX events_of_hostname")
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)

    problems = (await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore)).problems

    assert problems == ["The index public.events_of_hostname is missing."]


async def test_verify_takes_a_backup_whose_functions_are_older_than_the_codes(
    database: Database, tmp_path: Path
) -> None:
    owner = await database.connect()
    await owner.execute("DROP TRIGGER vm_update_trigger ON vms")
    await owner.execute("CREATE OR REPLACE FUNCTION highest_epoch() RETURNS bigint LANGUAGE sql IMMUTABLE RETURN 1")
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)

    assert (await verify(database.dsn("lablink"), Directory(tmp_path), made.name, ignore)).problems == []


async def test_a_backup_of_a_newer_postgresql_is_refused_in_a_sentence(database: Database, tmp_path: Path) -> None:
    storage, dsn = Directory(tmp_path), database.dsn("lablink")
    made = await back_up(dsn, storage, ignore)
    newer = replace(made, server_version=made.server_version + 1)
    await storage.write(f"{made.name}.json", newer.manifest())

    with pytest.raises(UpkeepFailed, match=f"of PostgreSQL {newer.server_version}, and this server is of"):
        await verify(dsn, storage, "latest", ignore)
