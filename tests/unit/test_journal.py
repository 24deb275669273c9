"""The journal remembers what was started through any crash, and notices when it cannot know."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import pytest

from client.journal import Fenced, Journal, JournalError
from client.protocol import Memory
from client.records import Entry, Fence, Key, Record, decode, encode_all
from tests.support.journals import opened

LEASE = UUID("11111111-1111-4111-8111-111111111111")
OTHER = UUID("22222222-2222-4222-8222-222222222222")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    Journal.create(tmp_path / "journal")
    return tmp_path / "journal"


def state_of(journal: Journal, key: Key) -> str | None:
    entry = journal.entry(key)
    return entry.state if entry else None


def test_a_new_journal_remembers_nothing(path: Path) -> None:
    journal = opened(path)
    assert journal.memory == Memory(0, None)
    assert not journal.damaged


def test_creating_again_keeps_what_is_there(path: Path) -> None:
    opened(path).intend(Key(LEASE, 3))
    Journal.create(path)
    assert opened(path).memory == Memory(3, LEASE)


def test_an_open_intent_is_unknown_after_a_restart_and_stays_so(path: Path) -> None:
    opened(path).intend(Key(LEASE, 1))
    for _ in range(2):
        reopened = opened(path)
        assert state_of(reopened, Key(LEASE, 1)) == "unknown"
        assert reopened.has_unknown


def test_closing_intents_is_durable_before_opening_returns(path: Path) -> None:
    opened(path).intend(Key(LEASE, 1))
    opened(path)
    assert decode(path.read_bytes()).records[-1] == Entry(Key(LEASE, 1), "unknown", failure="unknown")


def test_an_ending_survives_a_restart_with_all_its_details(path: Path) -> None:
    ending = Entry(Key(LEASE, 1), "done", 3, 'said "ü"\n', None)
    journal = opened(path)
    journal.intend(ending.key)
    journal.conclude(ending)
    assert opened(path).entry(ending.key) == ending


def test_the_first_ending_stands(path: Path) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 1))
    journal.conclude(Entry(Key(LEASE, 1), "done", 0))
    journal.conclude(Entry(Key(LEASE, 1), "failed", 1, "", "command-failed"))
    assert state_of(journal, Key(LEASE, 1)) == "done"


def test_a_command_that_never_started_has_an_ending_too(path: Path) -> None:
    opened(path).conclude(Entry(Key(LEASE, 1), "failed", failure="refused"))
    assert state_of(opened(path), Key(LEASE, 1)) == "failed"


@pytest.mark.parametrize("epoch", [3, 4, 5], ids=["older", "same", "newer"])
def test_an_intent_for_what_was_started_before_is_refused(path: Path, epoch: int) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, epoch))
    with pytest.raises(Fenced):
        journal.intend(Key(LEASE, epoch))


@pytest.mark.parametrize("epoch", [1, 4, 5])
def test_an_intent_at_or_below_the_fence_is_refused(path: Path, epoch: int) -> None:
    journal = opened(path)
    journal.fence_off(5)
    for known in (journal, opened(path)):
        with pytest.raises(Fenced):
            known.intend(Key(LEASE, epoch))


@pytest.mark.parametrize("epoch", [6, 7])
def test_an_intent_that_is_not_newer_than_all_that_is_remembered_is_refused(path: Path, epoch: int) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 7))
    with pytest.raises(Fenced):
        journal.intend(Key(OTHER, epoch))


def test_a_fence_closes_open_intents_in_the_same_write_and_never_falls(path: Path) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 2))
    journal.intend(Key(OTHER, 9))
    journal.fence_off(3)
    journal.fence_off(1)
    assert decode(path.read_bytes()).records == [Fence(3), Entry(Key(OTHER, 9), "unknown", failure="unknown")]


def test_memory_is_the_highest_epoch_and_its_lease(path: Path) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 4))
    assert journal.memory == Memory(4, LEASE)
    journal.fence_off(5)
    assert journal.memory == Memory(5, None)


def test_the_journal_does_not_grow_with_the_leases_that_were_served(path: Path) -> None:
    journal = opened(path)
    for epoch in range(1, 200, 2):
        journal.intend(Key(LEASE, epoch))
        journal.conclude(Entry(Key(LEASE, epoch), "done", 0, "x" * 1000))
        journal.fence_off(epoch + 1)
    assert path.stat().st_size < 100


def test_a_missing_journal_is_damage_because_enrolment_made_one(tmp_path: Path) -> None:
    assert opened(tmp_path / "journal").damaged


def test_a_damaged_journal_takes_no_work_and_keeps_its_file_until_it_is_rebuilt(path: Path) -> None:
    path.write_bytes(b"not a journal\n")
    journal = opened(path)
    with pytest.raises(Fenced):
        journal.intend(Key(LEASE, 99))
    assert path.read_bytes() == b"not a journal\n"


def test_rebuilt_without_a_lease_it_is_fenced_at_the_databases_epoch(path: Path) -> None:
    path.write_bytes(b"")
    journal = opened(path)
    journal.rebuild(7, None)
    assert opened(path).memory == Memory(7, None)
    with pytest.raises(Fenced):
        journal.intend(Key(LEASE, 7))


def test_rebuilt_under_a_live_lease_that_lease_is_unknown(path: Path) -> None:
    path.write_bytes(b"")
    journal = opened(path)
    journal.rebuild(7, LEASE)
    assert not journal.damaged
    assert state_of(opened(path), Key(LEASE, 7)) == "unknown"


def test_a_full_disk_is_one_clear_error_and_the_disk_is_read_again(path: Path) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 1))
    with files_of_at_most(path.stat().st_size + 5), pytest.raises(JournalError, match="written"):
        journal.conclude(Entry(Key(LEASE, 1), "done", 0))
    assert not journal.trusted
    with pytest.raises(JournalError):
        journal.conclude(Entry(Key(LEASE, 1), "done", 0))
    journal.reload()
    assert state_of(journal, Key(LEASE, 1)) == "unknown"


def test_an_intent_that_did_not_fit_is_not_on_record_and_may_be_tried_again(path: Path) -> None:
    journal = opened(path)
    with files_of_at_most(path.stat().st_size + 5), pytest.raises(JournalError):
        journal.intend(Key(LEASE, 1))
    journal.reload()
    journal.intend(Key(LEASE, 1))


def test_a_disk_that_stays_full_keeps_the_journal_untrusted(path: Path) -> None:
    journal = opened(path)
    with files_of_at_most(0), pytest.raises(JournalError):
        journal.reload()
    assert not journal.trusted


def written_journal(path: Path) -> tuple[bytes, bytes]:
    """A whole journal, and the same without its last, durable line."""
    records: list[Record] = [Fence(2), Entry(Key(LEASE, 3), "intent"), Entry(Key(LEASE, 3), "done", 0, "out", None)]
    return encode_all(records)[0], encode_all(records[:2])[0]


def test_cut_at_any_byte_of_its_last_line_it_is_what_it_was_before_that_line(path: Path) -> None:
    whole, before = written_journal(path)
    for end in range(len(before), len(whole) - 1):
        reading = decode(whole[:end])
        assert reading.whole
        assert reading.records == decode(before).records


def test_cut_at_any_byte_of_its_first_line_it_is_damaged(path: Path) -> None:
    whole, _ = encode_all([Fence(2)])
    for end in range(len(whole) - 1):
        assert not decode(whole[:end]).whole


def test_flipped_in_any_bit_it_is_damaged_or_says_the_same(path: Path) -> None:
    whole, _ = written_journal(path)
    truth = decode(whole).records
    for at in range(len(whole)):
        for bit in range(8):
            flipped = whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :]
            reading = decode(flipped)
            assert not reading.whole or reading.records == truth, (at, bit)


def test_a_lost_or_repeated_or_swapped_line_is_damage(path: Path) -> None:
    whole, _ = written_journal(path)
    fence, intent, done = whole.splitlines(keepends=True)
    for lines in ([fence, done], [fence, intent, intent, done], [fence, done, intent], [intent, done], [fence, fence]):
        assert not decode(b"".join(lines)).whole


def test_zeros_that_a_crash_left_behind_are_damage(path: Path) -> None:
    whole, _ = written_journal(path)
    assert not decode(whole + b"\0" * 100).whole


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond `size` bytes: a disk that is full, for as long as this lasts."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_command_that_began_after_one_of_unknown_outcome_is_no_remains_of_it(path: Path) -> None:
    journal = opened(path)
    journal.intend(Key(LEASE, 1))
    journal = opened(path)
    assert journal.has_unknown
    journal.intend(Key(LEASE, 2))
    journal.conclude(Entry(Key(LEASE, 2), "done", 0))
    assert not opened(path).has_unknown
