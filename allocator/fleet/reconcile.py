"""The record beside EC2: whose instance is gone, and what is there without the other."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from allocator.fleet import record
from allocator.fleet.adoption import instances_in
from allocator.fleet.cloud import Instance
from allocator.fleet.description import Fleet
from allocator.fleet.refusals import InUse, NotOfFleet
from client.network import Connection

log = structlog.get_logger()

SEEN_AFTER = timedelta(minutes=5)
"""EC2 may not show an instance that was just made."""
ENROLS_WITHIN = timedelta(hours=1)
BELIEVED_SHARE = 0.2
"""Where more instances than this share (and more than two) are just not shown, we look in the wrong place."""

APPLY = "lablink fleet apply"


@dataclass(frozen=True, slots=True)
class Alien:
    """Something that is there without what belongs to it, and the command that mends it."""

    what: str
    hostname: str
    instance: str | None
    cure: str


async def settle_gone(fleet: Fleet, connection: Connection) -> list[str]:
    """Retire machines whose instance is gone; their people are told. Returns their names."""
    there = {each.id: each for each in await fleet.cloud.instances(fleet.name)}
    rows = [row for row in await record.status(connection) if row["instance_id"]]
    ended = [row["instance_id"] for row in rows if row["instance_id"] in there and there[row["instance_id"]].is_gone]
    now = await connection.fetchval("SELECT clock()")
    unseen = [r["instance_id"] for r in rows if r["instance_id"] not in there and r["made_at"] < now - SEEN_AFTER]
    if len(unseen) > max(2, BELIEVED_SHARE * len(rows)):
        log.warning("fleet.unseen", instances=len(unseen), of=len(rows), region=fleet.region)
        unseen = []
    return await record.lose(connection, [*ended, *unseen])


async def aliens(fleet: Fleet, connection: Connection, state: Mapping[str, Any]) -> list[Alien]:
    """What EC2, the record and Terraform's state have without each other."""
    there = [each for each in await fleet.cloud.instances(fleet.name) if not each.is_gone]
    rows = {row["hostname"]: row for row in await record.status(connection)}
    written = instances_in(state)
    now = await connection.fetchval("SELECT clock()")
    live = {each.id for each in there}
    return [
        *_without_row(there, rows, written),
        *_without_instance(rows, live),
        *_not_in_service(rows, live, now - ENROLS_WITHIN),
        *(
            Alien("state without instance", hostname, instance, APPLY)
            for hostname, instance in written.items()
            if instance not in live and (rows.get(hostname) or {}).get("instance_id") != instance
        ),
    ]


async def mend(fleet: Fleet, connection: Connection, found: Sequence[Alien], name: str) -> Alien:
    """Mend the alien of that instance or hostname, where its cure is this. Raises NotOfFleet, InUse."""
    for alien in found:
        if name in (alien.instance, alien.hostname) and alien.cure.startswith("lablink fleet mend"):
            break
    else:
        raise NotOfFleet(name)
    if alien.what == "row without instance":
        await record.lose(connection, [str(alien.instance)])
        return alien
    if alien.hostname not in {row["hostname"] for row in await record.status(connection)}:
        held = await record.retire(connection, [alien.hostname])
        if held:
            raise InUse(held, [each.words for each in await record.held(connection, held)])
    await fleet.cloud.terminate([str(alien.instance)])
    return alien


def _without_row(
    there: Sequence[Instance], rows: Mapping[str, Mapping[str, Any]], written: Mapping[str, str]
) -> list[Alien]:
    """Instances that no row has: Terraform removes those that its state knows."""
    found = [each for each in there if (rows.get(each.hostname) or {}).get("instance_id") != each.id]
    return [
        Alien(
            "instance without row",
            each.hostname,
            each.id,
            APPLY if each.id in written.values() else f"lablink fleet mend {each.id}",
        )
        for each in found
    ]


def _without_instance(rows: Mapping[str, Mapping[str, Any]], live: set[str]) -> list[Alien]:
    return [
        Alien("row without instance", hostname, row["instance_id"], f"lablink fleet mend {hostname}")
        for hostname, row in rows.items()
        if row["instance_id"] and row["instance_id"] not in live
    ]


def _not_in_service(rows: Mapping[str, Mapping[str, Any]], live: set[str], since: Any) -> list[Alien]:
    """Instances that run and are no machine that could be lent: they never enrolled, or were retired."""
    return [
        Alien("instance not in service", hostname, row["instance_id"], f"lablink fleet replace {hostname}")
        for hostname, row in rows.items()
        if row["instance_id"] in live and row["vm_id"] is None and row["invited_at"] and row["invited_at"] < since
    ]
