"""The session's place on a real file system: empty at first, gone afterwards, whatever was done to it."""

import os
import pwd
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from client.session import Account, AccountUnusable, Session, SessionNotClean, WipeFailed, owner_of, sweep


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(tmp_path / "state" / "session")


@pytest.fixture(autouse=True)
def state(session: Session) -> Path:
    session.directory.parent.mkdir()
    return session.directory.parent


def test_an_opened_session_is_empty_and_private(session: Session) -> None:
    session.open()

    assert [path.name for path in session.directory.iterdir()] == ["tmp"]
    for directory in (session.directory, session.temporary):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_opening_again_before_anything_ran_is_fine(session: Session) -> None:
    session.open()
    session.open()

    assert session.temporary.is_dir()


@pytest.mark.parametrize("left", ["file", "tmp/file"])
def test_a_session_does_not_open_on_what_another_left(session: Session, left: str) -> None:
    session.open()
    (session.directory / left).touch()

    with pytest.raises(SessionNotClean, match="wipe it first"):
        session.open()


async def test_after_a_wipe_nothing_is_left_and_it_opens_again(session: Session, state: Path) -> None:
    session.open()
    (session.directory / "a").mkdir()
    (session.directory / "a" / "file").write_text("x")
    await session.wipe()

    assert list(state.iterdir()) == []
    session.open()


async def test_a_wipe_may_be_repeated(session: Session) -> None:
    await session.wipe()
    await session.wipe()

    assert not session.directory.exists()


async def test_a_wipe_follows_no_link(session: Session, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").write_text("x")
    session.open()
    (session.directory / "to-directory").symlink_to(treasure)
    (session.directory / "to-file").symlink_to(treasure / "file")
    (session.directory / "to-nothing").symlink_to("nowhere")
    (session.directory / "deep").mkdir()
    (session.directory / "deep" / "to-directory").symlink_to(treasure)
    await session.wipe()

    assert (treasure / "file").read_text() == "x"
    assert not session.directory.exists()


async def test_a_session_replaced_by_a_link_loses_only_the_link(session: Session, tmp_path: Path) -> None:
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / "file").touch()
    session.directory.symlink_to(treasure)
    await session.wipe()

    assert (treasure / "file").exists()
    assert not session.directory.is_symlink()


async def test_all_kinds_of_files_go(session: Session) -> None:
    session.open()
    os.mkfifo(session.directory / "fifo")
    os.mknod(session.directory / "socket", stat.S_IFSOCK | 0o600)
    (session.directory / "\udcff-no-utf8").touch()
    (session.directory / "line\nbreak").touch()
    (session.directory / "original").touch()
    (session.directory / "link").hardlink_to(session.directory / "original")
    await session.wipe()

    assert not session.directory.exists()


async def test_depth_and_number_do_not_matter(session: Session) -> None:
    session.open()
    top = os.open(session.directory, os.O_RDONLY)
    at = os.dup(top)
    for _ in range(3 * sys.getrecursionlimit()):
        os.mkdir("d", dir_fd=at)
        os.close(os.open("file", os.O_CREAT, dir_fd=at))
        deeper = os.open("d", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = deeper
    os.close(at)
    for number in range(2500):
        os.mkdir(f"d{number}", dir_fd=top)
    os.close(top)
    await session.wipe()

    assert not session.directory.exists()


async def test_a_wipe_that_cannot_be_done_says_so(session: Session, state: Path) -> None:
    state.rmdir()

    with pytest.raises(WipeFailed, match=r"could not be cleaned: .*No such file"):
        await session.wipe()


OWNER = 65_347
REMOVE_AS_OWNER = f"""
import os, pathlib, sys
from client.session import remove
if os.geteuid() == 0:
    os.setresuid({OWNER}, {OWNER}, {OWNER})
remove(pathlib.Path(sys.argv[1]))
"""


@pytest.fixture
def holder() -> Iterator[Path]:
    """A directory whose owner is not root: root ignores modes."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def test_closed_directories_are_opened(holder: Path) -> None:
    inner = holder / "place" / "a" / "b"
    inner.mkdir(parents=True)
    (inner / "file").touch()
    (holder / "place" / "read-only").mkdir()
    for path in sorted(holder.rglob("*"), reverse=True):
        path.chmod(0)
    if os.geteuid() == 0:
        for path in (holder, *holder.rglob("*")):
            os.chown(path, OWNER, -1)
    subprocess.run([sys.executable, "-c", REMOVE_AS_OWNER, str(holder / "place")], check=True, timeout=60)

    assert list(holder.iterdir()) == []


def test_somebody_elses_file_that_is_gone_meanwhile_stops_no_wipe(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert owner_of(tmp_path / "there") == os.getuid()
    assert owner_of(tmp_path / "gone") is None


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of another account")


@AS_ROOT
def test_what_an_account_left_deep_in_shared_directories_goes_and_nothing_else(tmp_path: Path) -> None:
    sockets, closed = tmp_path / ".X11-unix", tmp_path / "closed"
    sockets.mkdir()
    closed.mkdir(mode=0o700)
    (sockets / "left").mkdir()
    for path in (sockets / "left" / "file", sockets / "others", closed / "other", tmp_path / "file"):
        path.touch()
    (tmp_path / "link").symlink_to(sockets)
    for path in (sockets / "left", closed / "other", tmp_path / "file", tmp_path / "link"):
        os.chown(path, OWNER, OWNER, follow_symlinks=False)
    sweep(str(tmp_path), Account("lablink-test", OWNER, OWNER, ()))

    assert {path.name for path in tmp_path.rglob("*")} == {".X11-unix", "others", "closed", "other", "state"}


@AS_ROOT
def test_an_account_with_a_home_of_its_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    entry = pwd.struct_passwd(("labuser", "x", OWNER, OWNER, "", str(home), "/bin/sh"))
    monkeypatch.setattr(pwd, "getpwnam", lambda name: entry)
    assert Account.named("labuser", tmp_path / "session").uid == OWNER
    home.mkdir()
    os.chown(home, OWNER, OWNER)

    with pytest.raises(AccountUnusable, match="has a home where people could leave things"):
        Account.named("labuser", tmp_path / "session")
    assert Account.named("labuser", home).uid == OWNER


def test_an_account_that_does_not_exist_is_named(session: Session) -> None:
    with pytest.raises(AccountUnusable, match="'no-such-account': create it, or change session_user"):
        Account.named("no-such-account", Path("/nowhere"))


def test_root_is_no_account_for_commands() -> None:
    with pytest.raises(AccountUnusable, match="an account that is not"):
        Account.named("root", Path("/nowhere"))
