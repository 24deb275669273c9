"""`lablink verify`: what it says of a database that is well, and of one that is not."""

import json

from tests.support.admin import ask, lablink
from tests.support.database import Database


async def test_verify_finds_nothing_wrong_with_a_new_database(database: Database) -> None:
    await database.vm("vm-1")
    await ask(database, "ada@example.org")

    done = await lablink(database, "verify")

    assert done.returncode == 0, done.stdout
    assert done.stdout.strip() == "Everything is as it must be."


async def test_verify_names_what_is_wrong(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER TABLE vms DISABLE TRIGGER vm_guard_trigger")
    await superuser.execute("GRANT SELECT ON vms TO lablink_client")
    await superuser.execute("GRANT EXECUTE ON FUNCTION retire_vm TO PUBLIC")

    done = await lablink(database, "verify", "--json")

    assert done.returncode == 1
    assert [row["what"] for row in json.loads(done.stdout)] == [
        "Everybody may EXECUTE function public.retire_vm(text), and LabLink does not need that.",
        "The trigger vm_guard_trigger on public.vms is off.",
        "lablink_client may SELECT table public.vms, and LabLink does not need that.",
    ]


async def test_verify_compares_the_triggers_with_those_that_a_migrate_makes(database: Database) -> None:
    superuser = await database.connect("postgres")
    await superuser.execute("ALTER TABLE vms DISABLE TRIGGER vm_follow_update_trigger")
    await superuser.execute("ALTER TABLE leases ENABLE REPLICA TRIGGER lease_guard_trigger")
    await superuser.execute("DROP TRIGGER events_guard_trigger ON events")
    await superuser.execute(
        "CREATE TRIGGER theirs BEFORE UPDATE ON pools "
        "FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"
    )

    done = await lablink(database, "verify", "--json")

    assert [row["what"] for row in json.loads(done.stdout)] == [
        "The trigger events_guard_trigger on public.events is missing.",
        "The trigger lease_guard_trigger on public.leases is off.",
        "The trigger theirs on public.pools is not one of LabLink's.",
        "The trigger vm_follow_update_trigger on public.vms is off.",
    ]
