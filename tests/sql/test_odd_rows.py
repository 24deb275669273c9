"""Every CHECK of every table is met by a refusal that says what to do; and what would be kept nowhere is refused."""

import asyncpg
import pytest

from tests.sql.steps import ask, lent, refused
from tests.support.database import Database

SEAL = "INSERT INTO event_seals VALUES ({}, '2026-01-01', {}, {}, {}, {}, '', {}, now())"
HASH = "sha256('x')"
SCHEDULE = (
    "INSERT INTO pool_schedules (pool, name, days, starts_at, ends_at, machines, time_zone) "
    "VALUES ('default', '{}', '{}', '{}', '18:00', {}, 'UTC')"
)

STATEMENTS = {
    "admins_name_is_one": "INSERT INTO admins (name, token_sha256, expires_at) VALUES ('Ada', sha256('x'), now())",
    "admins_token_is_hashed": "INSERT INTO admins (name, token_sha256, expires_at) VALUES ('ada', 'x', now())",
    "boots_seconds_check": "INSERT INTO boots VALUES (1, gen_random_uuid(), 'default', now(), '[]', -1)",
    "event_archives_sha256_check": "INSERT INTO event_archives (month, ids, events, file, sha256, archived_by) "
    "VALUES ('2026-01-01', '{}', 1, 'x', 'x', 'x')",
    "event_sealing_only_row_check": "INSERT INTO event_sealing (only_row) VALUES (false)",
    "event_seals_check": SEAL.format(1, "'{[1,2)}'", 1, HASH, "'x'", HASH),
    "event_seals_events_check": SEAL.format(1, "'{[1,2)}'", 0, HASH, "''", HASH),
    "event_seals_ids_check": SEAL.format(1, "'{}'", 1, HASH, "'12345678'", HASH),
    "event_seals_rows_sha256_check": SEAL.format(1, "'{[1,2)}'", 1, "'x'", "'12345678'", HASH),
    "event_seals_seal_check": SEAL.format(0, "'{[1,2)}'", 1, HASH, "'12345678'", HASH),
    "event_seals_sha256_check": SEAL.format(1, "'{[1,2)}'", 1, HASH, "'12345678'", "'x'"),
    "fleet_vms_ami_id_is_one": "INSERT INTO fleet_vms (hostname, ami_id) VALUES ('vm-9', 'debian')",
    "fleet_vms_disk_is_of_a_size": "INSERT INTO fleet_vms (hostname, disk_gb) VALUES ('vm-9', 1)",
    "fleet_vms_hostname_is_a_name": "INSERT INTO fleet_vms (hostname) VALUES ('VM 9')",
    "fleet_vms_instance_type_is_one": "INSERT INTO fleet_vms (hostname, instance_type) VALUES ('vm-9', 'large')",
    "fleet_vms_made_is_known": "INSERT INTO fleet_vms (hostname, made_at) VALUES ('vm-9', now())",
    "fleet_vms_reboots_are_few": "INSERT INTO fleet_vms (hostname, reboots) VALUES ('vm-9', 4)",
    "groups_max_live_is_a_number": "INSERT INTO groups VALUES ('biology', -1)",
    "groups_name_is_one": "INSERT INTO groups VALUES ('Biology 2')",
    "join_codes_code_is_hashed": "INSERT INTO join_codes (group_name, code_sha256, closes_at) "
    "VALUES ('x', 'x', 'infinity')",
    "join_codes_opens_before_it_closes": "INSERT INTO join_codes (group_name, code_sha256, closes_at) "
    "VALUES ('x', sha256('x'), now() - interval '1 h')",
    "join_codes_max_people_is_some": "INSERT INTO join_codes (group_name, code_sha256, closes_at, max_people) "
    "VALUES ('x', sha256('x'), 'infinity', 0)",
    "join_tokens_hostname_is_a_name": "INSERT INTO join_tokens (token_sha256, hostname, pool, expires_at) "
    "VALUES (sha256('x'), 'vm 1', 'default', now())",
    "join_tokens_token_sha256_check": "INSERT INTO join_tokens (token_sha256, hostname, pool, expires_at) "
    "VALUES ('x', 'vm-1', 'default', now())",
    "lease_secrets_check": "INSERT INTO lease_secrets (lease_id) VALUES (gen_random_uuid())",
    "leases_active_desktop_exited_0": "UPDATE leases SET exit_code = 1",
    "leases_active_has_a_known_kind": "UPDATE leases SET status = 'active', kind = 'typed'",
    "leases_active_was_started": "UPDATE leases SET started_at = NULL",
    "leases_failed_has_a_failure": "UPDATE leases SET failure = 'lost'",
    "leases_failure_check": "UPDATE leases SET status = 'failed', failure = 'Out of luck', ended_at = now()",
    "leases_kind_check": "INSERT INTO leases (email, kind, deadline) VALUES ('eve@example.org', 'vm', now())",
    "leases_output_check": "UPDATE leases SET output = repeat('x', 65537)",
    "leases_queued_has_no_vm": "INSERT INTO leases (email, kind, vm_id, deadline) VALUES ('eve', 'typed', 1, now())",
    "leases_served_has_a_vm": "INSERT INTO leases (email, kind, status) VALUES ('eve@example.org', 'hold', 'active')",
    "leases_status_is_known": "INSERT INTO leases (email, kind, status) VALUES ('eve@example.org', 'typed', 'on')",
    "leases_terminal_has_an_end": "UPDATE leases SET ended_at = now()",
    "leases_waiting_has_a_deadline": "UPDATE leases SET status = 'claimed', deadline = NULL",
    "members_email_is_one": "INSERT INTO members VALUES ('ada', 'x')",
    "operations_check": "INSERT INTO operations (kind, finished_at) VALUES ('x', now())",
    "operations_check1": "INSERT INTO operations (kind, error) VALUES ('x', 'x')",
    "operations_status_check": "INSERT INTO operations (kind, status, finished_at) VALUES ('x', 'paused', now())",
    "pool_schedules_has_days": SCHEDULE.format("gpu", "{}", "9:00", 1),
    "pool_schedules_name_is_one": SCHEDULE.format("Workshop", "{mon}", "9:00", 1),
    "pool_schedules_takes_time": SCHEDULE.format("gpu", "{mon}", "18:00", 1),
    "pool_schedules_time_zone_is_one": SCHEDULE.format("gpu", "{mon}", "9:00", 1).replace("UTC", "Berlin"),
    "pool_schedules_wants_machines": SCHEDULE.format("gpu", "{mon}", "9:00", -1),
    "pools_access_is_one": "UPDATE pools SET access = 'closed'",
    "pools_claim_seconds_check": "UPDATE pools SET claim_seconds = 0",
    "pools_command_seconds_check": "UPDATE pools SET command_seconds = -1",
    "pools_currency_is_one": "UPDATE pools SET currency = 'euro'",
    "pools_keep_seconds_is_a_time": "UPDATE pools SET keep_seconds = 0",
    "pools_idle_seconds_is_a_time": "UPDATE pools SET idle_seconds = idle_warn_seconds",
    "pools_lease_seconds_check": "INSERT INTO pools (name, lease_seconds) VALUES ('gpu', 0)",
    "pools_money_is_some": "UPDATE pools SET budget = -1",
    "pools_name_check": "INSERT INTO pools (name) VALUES ('GPU 2')",
    "pools_per_person_is_some": "UPDATE pools SET per_person = 0",
    "pools_queue_seconds_check": "UPDATE pools SET queue_seconds = 0",
    "pools_size_is_possible": "UPDATE pools SET min_machines = 3, max_machines = 2",
    "pools_terms_are_times": "UPDATE pools SET warn_seconds = -1",
    "pools_time_zone_is_one": "UPDATE pools SET time_zone = 'Berlin'",
    "pools_transport_is_one": "UPDATE pools SET transport = 'pigeon'",
    "shares_max_live_is_a_number": "INSERT INTO shares VALUES ('default', 'x', -1)",
    "usage_counting_only_row_check": "INSERT INTO usage_counting (only_row) VALUES (false)",
    "vm_transitions_epoch_rule_check": "INSERT INTO vm_transitions VALUES ('booting', 'booting', '-')",
    "vm_roles_token_is_hashed": "INSERT INTO vm_roles (role, hub_sha256) VALUES ('vm_9', 'x')",
    "vms_available_is_clean": "INSERT INTO vms (hostname, status, epoch) VALUES ('vm-9', 'available', 5)",
    "vms_check": "INSERT INTO vms (hostname, cleaned_epoch) VALUES ('vm-9', 1)",
    "vms_epoch_check": "INSERT INTO vms (hostname, epoch, cleaned_epoch) VALUES ('vm-9', -1, -1)",
    "vms_failed_has_a_reason": "INSERT INTO vms (hostname, reason) VALUES ('vm-9', 'noisy')",
    "vms_hostname_is_a_name": "INSERT INTO vms (hostname) VALUES ('vm 9')",
    "vms_in_use_has_a_lease": "UPDATE vms SET lease_id = NULL",
    "vms_only_in_use_has_a_person": "INSERT INTO vms (hostname, email) VALUES ('vm-9', 'eve@example.org')",
    "vms_status_is_known": "INSERT INTO vms (hostname, status) VALUES ('vm-9', 'free')",
}
"""What breaks each CHECK and no other, where Ada has vm-1."""

EVERY_CHECK = """
    SELECT k.conname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
    WHERE k.contype = 'c' AND k.connamespace = 'public'::regnamespace AND NOT c.relispartition ORDER BY 1
"""


async def test_every_check_has_a_statement_here(owner: asyncpg.Connection) -> None:
    assert [row["conname"] for row in await owner.fetch(EVERY_CHECK)] == sorted(STATEMENTS)


@pytest.mark.parametrize("check", STATEMENTS)
async def test_what_a_check_would_refuse_is_refused_before_with_a_hint(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection, check: str
) -> None:
    await lent(database, service)
    without_triggers = await database.connect("postgres")
    await without_triggers.execute("SET session_replication_role = replica")

    with pytest.raises(asyncpg.CheckViolationError) as bare:
        await without_triggers.execute(STATEMENTS[check])
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await owner.execute(STATEMENTS[check])

    assert getattr(bare.value, "constraint_name", None) == check
    assert getattr(refusal.value, "hint", None)
    assert refusal.value.sqlstate == "LL003" or getattr(refusal.value, "constraint_name", None) == check


@pytest.mark.parametrize("change", ["hostname = 'vm-1'", "epoch = 1"])
async def test_a_lease_that_waits_names_nothing_of_a_machine(
    owner: asyncpg.Connection, service: asyncpg.Connection, change: str
) -> None:
    await ask(service)

    with refused("23514"):
        await owner.execute(f"UPDATE leases SET {change}")


@pytest.mark.parametrize(
    "change",
    ["reason = 'noisy'", "status = 'cleaning', reason = 'noisy'", "status = 'retired', reason = 'sold'"],
)
async def test_a_reason_that_would_not_be_kept_is_refused_with_the_statement_that_keeps_it(
    database: Database, owner: asyncpg.Connection, change: str
) -> None:
    await database.vm("vm-1")

    with pytest.raises(asyncpg.PostgresError) as refusal:
        await owner.execute(f"UPDATE vms SET {change}")
    hint = str(getattr(refusal.value, "hint", None))
    await owner.execute(hint.partition("take the machine out of service: ")[2])

    assert str(await owner.fetchval("SELECT reason FROM vms")).startswith("held by lablink: ")


async def test_a_machine_that_is_failed_gets_another_reason_and_loses_it_when_it_is_back(
    database: Database, owner: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await owner.execute("UPDATE vms SET status = 'failed', reason = 'noisy'")

    await owner.execute("UPDATE vms SET reason = 'no fan'")
    assert await owner.fetchval("SELECT reason FROM vms") == "held by lablink: no fan"
    await owner.execute("UPDATE vms SET status = 'available'")
    assert await owner.fetchval("SELECT reason FROM vms") is None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE vm_status SET status = 'failed'",
        "DELETE FROM vm_status",
        "INSERT INTO vm_status (hostname) VALUES ('vm-9')",
        "UPDATE waiting SET position = 1",
        "UPDATE fleet_status SET wanted = false",
        "DELETE FROM waiting",
    ],
)
async def test_who_changes_a_view_that_is_only_read_is_told_what_to_change(
    owner: asyncpg.Connection, service: asyncpg.Connection, statement: str
) -> None:
    await owner.execute("INSERT INTO vms (hostname) VALUES ('vm-1')")
    await owner.execute("INSERT INTO fleet_vms (hostname) VALUES ('vm-1')")
    await ask(service)

    with refused("LL003"):
        await owner.execute(statement)


async def test_an_event_added_by_hand_says_who_did_it(owner: asyncpg.Connection) -> None:
    await owner.execute("INSERT INTO events (kind, hostname) VALUES ('vm.note', 'vm-1')")

    assert await owner.fetchval("SELECT actor FROM events WHERE kind = 'vm.note'") == "lablink"


@pytest.mark.parametrize("number", ["min(id)", "max(id)", "max(id) + 1", "max(id) + 2", "9223372036854775807"])
async def test_an_event_added_by_hand_is_never_behind_the_chain_nor_ahead_of_it(
    database: Database, owner: asyncpg.Connection, number: str
) -> None:
    await database.vm("vm-1")
    await owner.execute("SELECT nextval('events_id_seq')")
    await owner.execute("UPDATE event_sealing SET settled = (SELECT max(id) + 1 FROM events)")

    with refused("LL003"):
        await owner.execute(f"INSERT INTO events (id, kind) SELECT {number}, 'vm.note' FROM events")


async def test_a_new_event_without_a_kind_and_a_seal_of_nothing_are_refused(
    database: Database, owner: asyncpg.Connection, service: asyncpg.Connection
) -> None:
    await database.vm("vm-1")
    await service.execute("SELECT sweep_seal()")

    with refused("LL003"):
        await owner.execute("INSERT INTO events (actor) VALUES ('me')")
    with refused("LL003"):
        await owner.execute(
            "INSERT INTO event_seals "
            "SELECT seal + 1, month, ids, events, rows_sha256, prints, sha256, sha256, sealed_at FROM event_seals"
        )


async def test_a_row_that_is_there_already_is_no_odd_row(database: Database, owner: asyncpg.Connection) -> None:
    await database.vm("vm-1")

    await owner.execute(
        "INSERT INTO pools (name) VALUES ('default') ON CONFLICT (name) DO UPDATE SET lease_seconds = 61"
    )
    await owner.execute(
        "INSERT INTO vms (hostname) VALUES ('vm-1') ON CONFLICT (hostname) DO UPDATE SET status = 'failed'"
    )

    assert await owner.fetchval("SELECT lease_seconds FROM pools") == 61
    assert await owner.fetchval("SELECT status FROM vms") == "failed"
