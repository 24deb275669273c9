"""A machine enrols once, whatever gets lost; its password never leaves it."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from client.enrol import EnrolmentError, Invitation, TokenRefused, discard, enrol
from client.settings import Credential, StateDir, load_credential
from tests.support.database import Database
from tests.support.enrolments import Desk, enrolment_desk
from tests.support.journals import opened
from tests.support.machine import AS_ROOT, Pool, started_client


@pytest_asyncio.fixture
async def desk(database: Database) -> AsyncIterator[Desk]:
    async with enrolment_desk(database) as desk:
        yield desk


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    return StateDir(tmp_path)


async def enrolled(state: StateDir, desk: Desk, token: str, file: Path | None = None) -> Credential:
    return await asyncio.to_thread(enrol, state, Invitation(desk.url, token, file), lambda words: None)


async def says_hello(database: Database, credential: Credential) -> str | None:
    address = credential.database
    dsn = database.server.dsn(address.database, address.user, address.password)
    connection = await database.keep(dsn)
    status: str | None = await connection.fetchval("SELECT status FROM client_api.hello(0, NULL)")
    return status


async def test_a_machine_enrols_and_its_password_opens_its_own_role(
    desk: Desk, database: Database, state: StateDir
) -> None:
    credential = await enrolled(state, desk, await desk.invite("vm-9"))
    assert credential.hostname == "vm-9"
    assert load_credential(state.credential) == credential
    assert await says_hello(database, credential) == "available"


async def test_an_allocator_that_knows_no_hub_lets_the_machine_in(
    desk: Desk, database: Database, state: StateDir
) -> None:
    credential = await enrolled(state, desk, await desk.invite("vm-9"))
    assert [sorted(json.loads(body)) for body in desk.bodies] == [["token", "verifier"]]
    assert await says_hello(database, credential) == "available"


async def test_the_password_is_kept_private_and_never_sent(desk: Desk, state: StateDir) -> None:
    credential = await enrolled(state, desk, await desk.invite("vm-9"))
    assert credential.database.password not in "".join(desk.bodies)
    assert state.credential.stat().st_mode & 0o777 == 0o600
    assert not state.enrolment.exists()


async def test_a_machine_that_enrolled_begins_a_journal(desk: Desk, state: StateDir) -> None:
    await enrolled(state, desk, await desk.invite("vm-9"))
    assert not opened(state.journal).damaged


@pytest.mark.parametrize("mishaps", [["deaf"], ["mute"], ["busy", "mute", "deaf"]])
async def test_an_enrolment_that_got_lost_is_repeated_with_the_same_words(
    desk: Desk, database: Database, state: StateDir, mishaps: list[str]
) -> None:
    desk.mishaps = list(mishaps)
    credential = await enrolled(state, desk, await desk.invite("vm-9"))
    assert len(desk.bodies) == len(mishaps) + 1
    assert len(set(desk.bodies)) == 1
    assert await says_hello(database, credential) == "available"


async def test_an_enrolment_that_a_crash_interrupted_is_finished_by_the_next_client(
    desk: Desk, database: Database, state: StateDir
) -> None:
    token = await desk.invite("vm-9")
    begun = await enrolled(state, desk, token)
    state.enrolment.write_text(
        json.dumps({"password": begun.database.password, "verifier": json.loads(desk.bodies[0])["verifier"]})
    )
    state.credential.unlink()
    assert await enrolled(state, desk, token) == begun


async def test_a_used_token_is_refused_in_words_that_help(desk: Desk, state: StateDir, tmp_path: Path) -> None:
    token = await desk.invite("vm-9")
    await enrolled(state, desk, token)
    (tmp_path / "other").mkdir()
    with pytest.raises(TokenRefused, match="unknown, used or expired"):
        await enrolled(StateDir(tmp_path / "other"), desk, token)


async def test_the_token_file_is_removed_once_it_has_done_its_work(desk: Desk, state: StateDir, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(await desk.invite("vm-9"))
    desk.mishaps = ["mute"]
    await enrolled(state, desk, file.read_text(), file)
    assert not file.exists()


async def test_a_token_file_that_leads_elsewhere_is_left_alone(desk: Desk, state: StateDir, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(await desk.invite("vm-9"))
    (tmp_path / "stdin").symlink_to(tmp_path / "token")  # as /dev/stdin is, which root could remove
    await enrolled(state, desk, (tmp_path / "token").read_text(), tmp_path / "stdin")
    discard(state, tmp_path / "stdin")
    assert (tmp_path / "stdin").is_symlink()


@pytest.mark.parametrize("url", ["http://lablink.example.org", "ftp://127.0.0.1", "lablink.example.org"])
async def test_a_token_is_not_sent_where_others_can_read_it(state: StateDir, url: str) -> None:
    with pytest.raises(EnrolmentError, match="https"):
        enrol(state, Invitation(url, "token"), lambda words: None)


async def test_a_client_that_was_given_a_token_file_enrols_and_serves(
    desk: Desk, database: Database, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(await desk.invite("vm-9"))
    (tmp_path / "settings.json").write_text(
        json.dumps({"allocator_url": desk.url, "join_token_file": "token", **AS_ROOT})
    )
    client = await started_client(tmp_path)
    pool = await Pool.of(database)
    try:
        await pool.until("SELECT status = 'available' FROM vms")
    finally:
        await client.kill()


async def test_a_machine_that_is_invited_anew_enrols_anew_and_a_refused_token_changes_nothing(
    desk: Desk, database: Database, state: StateDir
) -> None:
    old = await enrolled(state, desk, await desk.invite("vm-9"))
    state.settings.write_text(json.dumps({"allocator_url": desk.url, "join_token_file": "token", **AS_ROOT}))
    pool = await Pool.of(database)
    for token, same in (("unknown", True), (await desk.invite("vm-9"), False)):
        (state.root / "token").write_text(token)
        client = await started_client(state.root)
        try:
            await pool.until("SELECT count(*) = 1 FROM vms WHERE status = 'available' AND role IS NOT NULL")
            assert (load_credential(state.credential) == old) is same
            assert not (state.root / "token").exists()
            assert not state.enrolment.exists()
        finally:
            await client.kill()
        await pool.owner.execute("UPDATE vms SET status = 'failed'")


async def test_a_machine_that_is_enrolled_serves_although_the_allocator_cannot_answer_its_new_token(
    desk: Desk, database: Database, state: StateDir
) -> None:
    await enrolled(state, desk, await desk.invite("vm-9"))
    (state.root / "token").write_text("for later")
    away = {"allocator_url": "http://127.0.0.1:1", "join_token_file": "token", **AS_ROOT}
    state.settings.write_text(json.dumps(away))
    pool = await Pool.of(database)
    client = await started_client(state.root)
    try:
        await pool.until("SELECT status = 'available' FROM vms")
    finally:
        await client.kill()
    assert (state.root / "token").read_text() == "for later"


async def test_a_client_whose_token_is_refused_asks_for_a_new_one_by_its_exit_code(desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("unknown")
    (tmp_path / "settings.json").write_text(
        json.dumps({"allocator_url": desk.url, "join_token_file": "token", **AS_ROOT})
    )
    client = await started_client(tmp_path)
    assert await client.ended() == 77
    assert "unknown, used or expired" in client.log
