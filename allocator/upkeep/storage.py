"""Where backups are kept: a directory of this machine or a bucket of S3. What has a name there is complete."""

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from allocator.operations import Tell
from allocator.tasks import to_its_end
from allocator.upkeep import UpkeepFailed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

PARTIAL = ".partial"
ABANDONED_SECONDS = 86_400
MEGABYTE = 1_000_000
BUCKET = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/(.*?))?/?")


class Directory:
    """A directory of this machine, made when the first file comes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    async def names(self) -> list[str]:
        """Every complete file, in the order of names."""
        with self._explained():
            return sorted(file.name for file in self.path.glob("[!.]*")) if self.path.exists() else []

    async def read(self, name: str) -> bytes:
        """A small file's content."""
        with self._explained():
            return (self.path / name).read_bytes()

    async def write(self, name: str, content: bytes) -> None:
        """Put a small file there."""
        with self._explained(), self.workspace() as place:
            partial = place / f".{name}{PARTIAL}"
            partial.write_bytes(content)
            publish(partial, self.path / name)

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Where to make a file that is going there, under a name that begins with a dot and ends with PARTIAL."""
        with self._explained():
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for left in self.path.glob(f".*{PARTIAL}"):
                if left.stat().st_mtime < time.time() - ABANDONED_SECONDS:
                    left.unlink(missing_ok=True)
        yield self.path

    async def put(self, name: str, file: Path, tell: Tell) -> None:
        """Put a file of the workspace there; in the workspace it is gone then."""
        with self._explained():
            await to_its_end(asyncio.to_thread(publish, file, self.path / name))

    @asynccontextmanager
    async def fetched(self, name: str, tell: Tell) -> AsyncIterator[Path]:
        """The file, to be read on this machine during the block."""
        if not (self.path / name).is_file():
            raise UpkeepFailed(f"{self} has no file {name}.")
        yield self.path / name

    async def delete(self, name: str) -> None:
        """Remove a file; one that is not there is none to remove."""
        with self._explained():
            (self.path / name).unlink(missing_ok=True)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise UpkeepFailed(f"{self} cannot be used for backups ({error.strerror}).") from error


class Bucket:
    """A bucket of S3, or the part of it under a prefix. Credentials and region are boto3's own business."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.bucket = bucket
        self.prefix = f"{prefix}/" if prefix else ""

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    async def names(self) -> list[str]:
        """Every complete file, in the order of names."""

        def listed() -> list[str]:
            listing = self._s3.get_paginator("list_objects_v2")
            pages = listing.paginate(Bucket=self.bucket, Prefix=self.prefix, Delimiter="/")
            keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
            return sorted(key.removeprefix(self.prefix) for key in keys)

        return await self._ask(listed)

    async def read(self, name: str) -> bytes:
        """A small file's content."""
        return await self._ask(lambda: self._s3.get_object(Bucket=self.bucket, Key=self._key(name))["Body"].read())

    async def write(self, name: str, content: bytes) -> None:
        """Put a small file there."""
        await self._ask(lambda: self._s3.put_object(Bucket=self.bucket, Key=self._key(name), Body=content))

    @contextmanager
    def workspace(self) -> Iterator[Path]:
        """Where to make a file that is going there."""
        with tempfile.TemporaryDirectory(prefix="lablink-backup-") as directory:
            yield Path(directory)

    async def put(self, name: str, file: Path, tell: Tell) -> None:
        """Put a file of the workspace there; S3 shows an object when all of it is there."""
        moving = _Transfer(file.stat().st_size, f"sending {name}", tell)
        with self._explained():
            await moving.until(lambda: self._s3.upload_file(str(file), self.bucket, self._key(name), Callback=moving))

    @asynccontextmanager
    async def fetched(self, name: str, tell: Tell) -> AsyncIterator[Path]:
        """The file, to be read on this machine during the block."""
        with self.workspace() as directory:
            file, key = directory / name, self._key(name)
            size = await self._ask(lambda: self._s3.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
            moving = _Transfer(size, f"fetching {name}", tell)
            with self._explained():
                await moving.until(lambda: self._s3.download_file(self.bucket, key, str(file), Callback=moving))
            yield file

    async def delete(self, name: str) -> None:
        """Remove a file; one that is not there is none to remove."""
        await self._ask(lambda: self._s3.delete_object(Bucket=self.bucket, Key=self._key(name)))

    @cached_property
    def _s3(self) -> "S3Client":
        import boto3

        return boto3.client("s3")

    def _key(self, name: str) -> str:
        return self.prefix + name

    async def _ask(self, question: Callable[[], T]) -> T:
        with self._explained():
            return await to_its_end(asyncio.to_thread(question))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        from boto3.exceptions import Boto3Error
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            yield
        except (Boto3Error, BotoCoreError, ClientError) as error:
            raise UpkeepFailed(f"{self} does not do its part: {error}") from error
        except OSError as error:
            raise UpkeepFailed(f"{self}: there is no room for the file here ({error.strerror}).") from error


Storage = Directory | Bucket


def storage_at(place: str) -> Storage:
    """The storage of that name: a directory, or s3://bucket/prefix. Raises UpkeepFailed."""
    if not place.startswith("s3:"):
        return Directory(Path(place).expanduser().absolute())
    found = BUCKET.fullmatch(place)
    if not found:
        raise UpkeepFailed(f"{place} is no place in S3: write s3://BUCKET or s3://BUCKET/PREFIX.")
    return Bucket(found[1], found[2] or "")


def publish(partial: Path, final: Path) -> None:
    """Give a file its name once it is on the disk, readable by its owner only."""
    partial.chmod(0o600)
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    shutil.move(partial, final)
    directory = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def sha256_of(file: Path) -> bytes:
    """The SHA-256 of a file."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").digest()


class _Transfer:
    """A transfer of `size` bytes: boto3 calls it with each piece, in threads of its own."""

    def __init__(self, size: int, what: str, tell: Tell) -> None:
        self._size, self._what, self._tell = size, f"{what} (MB)", tell
        self._loop = asyncio.get_running_loop()
        self._moved = 0
        self._stopped = False

    def __call__(self, piece: int) -> None:
        if self._stopped:
            raise UpkeepFailed("The transfer was interrupted.")
        self._moved += piece
        told = self._tell(self._moved // MEGABYTE, self._size // MEGABYTE, self._what)
        asyncio.run_coroutine_threadsafe(told, self._loop)

    async def until(self, work: Callable[[], object]) -> None:
        """Do `work` in a thread; when we are cancelled it stops too, and has stopped."""
        thread = asyncio.ensure_future(asyncio.to_thread(work))
        try:
            await asyncio.shield(thread)
        except asyncio.CancelledError:
            self._stopped = True
            await asyncio.wait([thread])
            thread.exception()
            raise
