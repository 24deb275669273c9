"""Root makes, gives away and removes files where somebody else puts links in their place: it is lured nowhere."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

UID = 50_000 + os.getpid() % 5_000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be lured")

SOMEBODY = """
import os, sys
place, treasure = sys.argv[1:]
os.setgroups([]), os.setresgid({uid}, {uid}, {uid}), os.setresuid({uid}, {uid}, {uid})
print("ready", flush=True)
while True:
    try:
        {does}
    except OSError:
        pass
"""
TAKES_THE_PLACE = "os.rmdir(place); os.symlink(treasure, place)"
TAKES_THE_FILES_PLACE = "os.unlink(place); os.symlink(treasure, place)"
CHANGES_IT_ALL_THE_TIME = (
    "os.path.lexists(place) or os.mkdir(place); os.rename(place, place + '-'); "
    "os.symlink(treasure, place); [os.lstat(place) for _ in range(9)]; os.unlink(place); os.rename(place + '-', place)"
)

ROOT = """
import sys
from contextlib import suppress
from pathlib import Path
from client import durable
from client.session import Account, Session, remove
place, uid = Path(sys.argv[1]), int(sys.argv[2])
session = Session(place.parent, Account("lablink-test", uid, uid, ()))
done = 0
while done < 100:
    with suppress(OSError):
        {does}
        done += 1
"""


@pytest.fixture
def state() -> Iterator[Path]:
    """A directory of root's that anybody may pass through: a treasure of root's, and a place that is somebody's."""
    state = Path(tempfile.mkdtemp())
    state.chmod(0o711)
    (state / "treasure").mkdir(mode=0o755)
    (state / "session").mkdir()
    os.chown(state / "session", UID, UID)
    yield state
    shutil.rmtree(state)


def lured(state: Path, root: str, somebody: str) -> os.stat_result:
    """The treasure after root, held up a little at what follows links, did that while somebody did the other."""
    follows = "?chown,?chmod,fchownat,fchmodat"
    slow = ["strace", "-qq", "-o", "/dev/null", f"--trace={follows}", f"--inject={follows}:delay_enter=3000"]
    if shutil.which("strace") is None or subprocess.run([*slow, "true"], check=False).returncode != 0:
        pytest.skip("strace cannot hold up system calls here")
    place = str(state / "session" / "tmp")
    other = [sys.executable, "-c", SOMEBODY.format(uid=UID, does=somebody), place, str(state / "treasure")]
    with subprocess.Popen(other, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            subprocess.run([*slow, sys.executable, "-c", ROOT.format(does=root), place, str(UID)], check=True)
        finally:
            process.kill()
    return (state / "treasure").stat()


def test_a_session_that_is_opened_gives_away_nothing_else(state: Path) -> None:
    assert lured(state, "remove(session.directory); session.open()", TAKES_THE_PLACE).st_uid == 0


def test_what_is_removed_leaves_what_it_is_exchanged_for(state: Path) -> None:
    assert stat.S_IMODE(lured(state, "place.lstat(); remove(place)", CHANGES_IT_ALL_THE_TIME).st_mode) == 0o755


def test_a_file_that_is_given_away_is_the_one_that_was_made(state: Path) -> None:
    assert lured(state, "durable.replace(place, b'', (uid, uid))", TAKES_THE_FILES_PLACE).st_uid == 0
