"""What is asked of the database about machines: who may come, which there are, what is done to the fleet."""

from dataclasses import fields

from allocator import errors
from allocator.asking import Asking
from allocator.tokens import sha256
from allocator.views import Absent, Condition, Enrolled, FleetVmView, Instance, OperationView, VmView

OPERATION = f"SELECT {', '.join(each.name for each in fields(OperationView))} FROM operations"
FLEET = f"SELECT {', '.join(each.name for each in fields(FleetVmView))} FROM fleet_status"
ENROL_VM = "SELECT e.* FROM enrol_vm($1, $2) e, LATERAL keep_hub_token($1, e.role, $3)"
ENROL_INSTANCE = "SELECT e.* FROM enrol_instance($1, $2, $4, $5) e, LATERAL keep_hub_token($1, e.role, $3)"


class Machines(Asking):
    """Questions about machines."""

    async def vms(self) -> list[VmView]:
        """Every machine that is not retired, in the order of names."""
        return [VmView(**row) for row in await self._ask("SELECT * FROM vm_views")]

    async def why_vm(self, hostname: str) -> list[Condition]:
        """Why a machine is lent to nobody, or to whom it is, and what happens next. Raises NoSuchVm."""
        rows = await self._ask("SELECT * FROM why_vm($1)", hostname)
        if not rows:
            raise errors.NoSuchVm
        return [Condition(**row) for row in rows]

    async def enrol_vm(self, join_token: str, verifier: str, hub_sha256: bytes | None) -> Enrolled:
        """Let a machine in with its join token alone. Raises JoinRefused."""
        rows = await self._ask(ENROL_VM, sha256(join_token), verifier, hub_sha256)
        return Enrolled(**rows[0])

    async def is_open(self, join_token: str) -> bool:
        """Whether a machine may come with this join token that has not come yet."""
        return bool((await self._ask("SELECT is_open_token($1) AS open", sha256(join_token)))[0]["open"])

    async def enrol_instance(
        self, join_token: str, verifier: str, hub_sha256: bytes | None, instance: Instance | None
    ) -> Enrolled:
        """Let a machine in that has shown to be `instance`, without which none of the fleet is. Raises JoinRefused."""
        shown = (instance.id, instance.started_at) if instance else (None, None)
        rows = await self._ask(ENROL_INSTANCE, sha256(join_token), verifier, hub_sha256, *shown)
        return Enrolled(**rows[0])

    async def note_refused_join(self, join_token: str, instance: str | None, why: str) -> None:
        """Write down that somebody who had this join token was not let in."""
        await self._ask("SELECT note_refused_join($1, $2, $3)", sha256(join_token), instance, why)

    async def absent_machines(self) -> list[Absent]:
        """Machines that were invited and did not come, which nobody has written down yet."""
        return [Absent(**row) for row in await self._ask("SELECT * FROM absent_machines()")]

    async def note_absence(self, absent: Absent, phase: str) -> bool:
        """Write down that a machine did not come, and in which phase it stopped. Whether nobody else had."""
        return bool((await self._ask("SELECT note_absence($1, $2) AS noted", absent.token_sha256, phase))[0]["noted"])

    async def operations(self, limit: int) -> list[OperationView]:
        """The newest runs of something long, the newest first."""
        return [OperationView.of(dict(row)) for row in await self._ask(f"{OPERATION} ORDER BY id DESC LIMIT $1", limit)]

    async def operation(self, number: int) -> OperationView:
        """One of them. Raises NoSuchOperation."""
        rows = await self._ask(f"{OPERATION} WHERE id = $1", number)
        if not rows:
            raise errors.NoSuchOperation
        return OperationView.of(dict(rows[0]))

    async def fleet(self) -> list[FleetVmView]:
        """Every machine of the fleet."""
        return [FleetVmView(**row) for row in await self._ask(FLEET)]

    async def stop_flood(self, pid: int) -> str | None:
        """Revoke the machine whose session floods everybody; None when it is no machine's or it has a lot to tell."""
        rows = await self._ask("SELECT stop_flood($1) AS hostname", pid)
        hostname: str | None = rows[0]["hostname"]
        return hostname
