"""`lablink admins`: a token that is shown once, who has one, and that it is worth nothing any more."""

import hashlib

from tests.support.admin import answer, lablink
from tests.support.database import Database


async def test_an_admin_is_added_listed_and_removed_and_only_a_hash_is_kept(database: Database) -> None:
    owner = await database.connect("lablink")

    added = await lablink(database, "admins", "add", "ada", "--days", "30")
    token = added.stdout.strip()
    listed = await lablink(database, "admins", "list")
    (row,) = await answer(database, "admins", "list")
    removed = await answer(database, "admins", "remove", "ada")

    assert len(token) == 43 and "not shown again" in added.stderr
    assert token not in listed.stdout and "ada" in listed.stdout
    assert (row["name"], row["expired"], row["last_used_at"]) == ("ada", False, None)
    assert removed == {"name": "ada"} and await answer(database, "admins", "list") == []
    digest = hashlib.sha256(token.encode()).hexdigest()
    told = str(await owner.fetch("SELECT actor, kind, detail FROM events"))
    assert "cli:" in told and "admin.removed" in told and token not in told and digest not in told


async def test_what_cannot_be_done_is_said_with_what_to_do(database: Database) -> None:
    first = await answer(database, "admins", "add", "ada")
    again = await lablink(database, "admins", "add", "ada")
    odd = await lablink(database, "admins", "add", "ada@example.org")
    unknown = await lablink(database, "admins", "remove", "eve")

    assert len(first["token"]) == 43
    assert again.returncode == 1 and "lablink admins remove ada" in again.stderr
    assert odd.returncode == 1 and "small letters" in odd.stderr
    assert unknown.returncode == 4 and "lablink admins list" in unknown.stderr
