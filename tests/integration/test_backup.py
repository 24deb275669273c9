"""Backups: complete or not there, without secrets, checked when they are used, removed when they are old."""

import asyncio
import gc
import io
import json
import stat
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import boto3
import pytest

from allocator.operations import Tell
from allocator.upkeep import UpkeepFailed, programs
from allocator.upkeep.backup import Backup, back_up, backups, named, remove_old
from allocator.upkeep.rehearse import verify
from allocator.upkeep.storage import Bucket, Directory, Storage, storage_at
from tests.sql.steps import CODE, PIN
from tests.support.cloud import REGION, emptied, leads_to, moto_server
from tests.support.database import Database
from tests.support.upkeep import ignore, some_life

BUCKET = "backups-of-a-test"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The address of a stand-in for S3."""
    with moto_server() as url:
        yield url


@pytest.fixture(params=["directory", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """An empty place for backups, of each kind."""
    if request.param == "directory":
        return storage_at(str(tmp_path / "backups"))
    for name, value in leads_to(emptied(request.getfixturevalue("s3"))).items():
        monkeypatch.setenv(name, value)
    boto3.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return storage_at(f"s3://{BUCKET}/{tmp_path.name}")


async def test_a_backup_has_every_row_and_can_be_restored(database: Database, storage: Storage) -> None:
    await some_life(database)
    made = await back_up(database.dsn("lablink"), storage, ignore)

    assert await backups(storage) == [made]
    assert (made.rows["public.vms"], made.rows["public.leases"]) == (1, 2)
    shown = await verify(database.dsn("lablink"), storage, "latest", ignore)
    assert shown.problems == []
    assert [step.step for step in shown.steps] == ["restore", "up"]


async def test_a_backup_holds_no_code_pin_invitation_or_admin(database: Database, tmp_path: Path) -> None:
    await some_life(database)
    storage = Directory(tmp_path)
    made = await back_up(database.dsn("lablink"), storage, ignore)

    pg_restore = programs.find("pg_restore", database.server.version)
    printed = await programs.run(pg_restore, ["--file=-", f"{tmp_path}/{made.name}.dump"], database.dsn("lablink"))
    assert "COPY public.leases" in printed
    assert "ada@example.org" in printed
    table_data = [line for line in printed.splitlines() if line.startswith("COPY ")]
    left_out = ("lease_secrets", "join_tokens", "join_codes", "admins")
    assert not any(line.startswith(tuple(f"COPY public.{table}" for table in left_out)) for line in table_data)
    assert CODE not in printed
    assert PIN not in printed


async def test_a_backup_is_readable_by_its_owner_only(database: Database, tmp_path: Path) -> None:
    await back_up(database.dsn("lablink"), Directory(tmp_path / "new"), ignore)

    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (tmp_path / "new").iterdir()} == {0o600}


async def test_a_backup_tells_how_far_it_is(database: Database, tmp_path: Path) -> None:
    told = []

    async def tell(done: int, total: int | None, what: str) -> None:
        told.append((done, total, what))

    made = await back_up(database.dsn("lablink"), Directory(tmp_path), tell)

    assert {"public.vms", "public.leases"} <= {what for _, _, what in told}
    assert told[-1][:2] == (len(made.rows), len(made.rows))


async def test_what_changes_meanwhile_is_in_all_of_a_backup_or_in_none_of_it(
    database: Database, tmp_path: Path
) -> None:
    await some_life(database)
    owner = await database.connect()

    async def interfere(_done: int, _total: int | None, _what: str) -> None:
        await owner.execute("INSERT INTO pools (name) VALUES ('p' || floor(random() * 1e9)::text)")

    await back_up(database.dsn("lablink"), Directory(tmp_path), interfere)

    assert (await verify(database.dsn("lablink"), Directory(tmp_path), "latest", ignore)).problems == []


async def test_a_manifest_that_leads_to_another_place_is_no_backup(database: Database, storage: Storage) -> None:
    made = await back_up(database.dsn("lablink"), storage, ignore)
    forged = replace(made, name="../elsewhere").manifest()
    for name in ("innocent", "../elsewhere") if isinstance(storage, Bucket) else ("innocent",):
        await storage.write(f"{name}.json", forged)
        await storage.write(f"{name}.dump", b"")

    assert await backups(storage) == [made]


async def test_a_backup_that_is_interrupted_leaves_nothing(database: Database, storage: Storage) -> None:
    at_work = asyncio.Event()

    async def hold(_done: int, _total: int | None, _what: str) -> None:
        at_work.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(back_up(database.dsn("lablink"), storage, hold))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await storage.names() == []
    assert isinstance(storage, Bucket) or list(storage.path.iterdir()) == []


class Slow(Directory):
    """A directory to which no dump comes, and from which nothing goes before it may."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sends, self.removes, self.may_remove = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def put(self, name: str, file: Path, tell: Tell) -> None:
        self.sends.set()
        await asyncio.Event().wait()

    async def delete(self, name: str) -> None:
        self.removes.set()
        await self.may_remove.wait()
        await super().delete(name)


async def test_a_backup_that_is_interrupted_twice_leaves_nothing_either(database: Database, tmp_path: Path) -> None:
    storage, owner = Slow(tmp_path), await database.connect()
    task = asyncio.create_task(back_up(database.dsn("lablink"), storage, ignore))
    for at in (storage.sends, storage.removes):
        await at.wait()
        task.cancel()
    for _ in range(100):  # in which its connection would have been closed
        await owner.execute("SELECT")
    assert not task.done()

    storage.may_remove.set()
    await asyncio.wait([task])
    assert await storage.names() == []


@pytest.mark.parametrize("storage", ["s3"], indirect=True)
async def test_sending_a_file_to_a_bucket_ends_when_it_is_interrupted(storage: Bucket, tmp_path: Path) -> None:
    large, at_work = tmp_path / "large", asyncio.Event()
    with large.open("wb") as file:
        file.truncate(200 << 20)

    async def tell(_done: int, total: int | None, what: str) -> None:
        assert (total, what) == (209, "sending large (MB)")
        at_work.set()

    task = asyncio.create_task(storage.put("large", large, tell))
    await at_work.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    for left in gc.get_objects():  # boto3 leaves the parts that it never sent to whoever collects garbage
        if type(left) is io.BufferedReader and left.name == str(large):
            left.close()
    assert await storage.names() == []


async def test_half_a_backup_is_not_listed(database: Database, tmp_path: Path) -> None:
    made = await back_up(database.dsn("lablink"), Directory(tmp_path), ignore)
    (tmp_path / "somebody.json").write_text("[]")
    (tmp_path / f"{made.name}.dump").rename(tmp_path / "without-manifest.dump")

    assert await backups(Directory(tmp_path)) == []
    with pytest.raises(UpkeepFailed, match=r"has no complete backup\. Make one: lablink db backup --to "):
        await named(Directory(tmp_path), "latest")


async def test_old_backups_of_the_same_database_go_and_the_newest_stays(database: Database, storage: Storage) -> None:
    first = await back_up(database.dsn("lablink"), storage, ignore)
    second = await back_up(database.dsn("lablink"), storage, ignore, keep_days=1)
    await _made_earlier(storage, first, days=3)
    await _made_earlier(storage, second, days=2)

    assert await remove_old(storage, second, keep_days=7) == []
    third = await back_up(database.dsn("lablink"), storage, ignore, keep_days=1)

    assert [each.name for each in await backups(storage)] == [third.name]
    assert await remove_old(storage, third, keep_days=1) == []
    assert sorted(await storage.names()) == [f"{third.name}.dump", f"{third.name}.json"]


async def _made_earlier(storage: Storage, backup: Backup, days: int) -> None:
    manifest = json.loads(backup.manifest())
    manifest["taken_at"] = (backup.taken_at - timedelta(days=days)).isoformat()
    await storage.write(f"{backup.name}.json", json.dumps(manifest).encode())


async def test_a_place_that_cannot_be_written_to_is_one_sentence(database: Database, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(UpkeepFailed, match=r"cannot be used for backups \(Not a directory\)"):
        await back_up(database.dsn("lablink"), Directory(tmp_path / "file" / "backups"), ignore)


async def test_a_bucket_that_is_not_there_is_one_sentence(
    database: Database, s3: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in leads_to(s3).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UpkeepFailed, match=r"s3://nobodys-bucket does not do its part: .*NoSuchBucket"):
        await back_up(database.dsn("lablink"), storage_at("s3://nobodys-bucket"), ignore)


def test_a_program_that_is_too_old_is_not_used() -> None:
    with pytest.raises(UpkeepFailed, match="needs pg_dump of PostgreSQL 99 or newer"):
        programs.find("pg_dump", 99)


async def test_a_password_is_not_among_a_programs_arguments(database: Database) -> None:
    dsn = database.dsn("lablink")
    assert programs.environment(dsn)["PGPASSWORD"] == "owner-password"
    program = programs.find("psql", database.server.version)
    said = await programs.run(program, ["--no-psqlrc", "--tuples-only", "--command=SELECT current_user"], dsn)
    assert said.strip() == "lablink"
