"""What can go wrong in the service, each with a sentence that says what to do next.

A Refusal cannot be done as it is; what is Unavailable may work in a moment; DatabaseFailed is what nobody expected.
"""

from collections.abc import Mapping
from typing import ClassVar


class ServiceError(Exception):
    """Something that is answered with its own status and words. `title` is the same each time, the message is not."""

    title: ClassVar[str] = "Something went wrong"
    message: ClassVar[str] = "Something went wrong on our side. Try again; if it stays, tell your admin."
    field: ClassVar[str | None] = None
    """The field of the request that it is usually about."""

    def __init__(
        self, message: str | None = None, *, fields: Mapping[str, str] | None = None, why: str | None = None
    ) -> None:
        super().__init__(message or " ".join((fields or {}).values()) or self.message)
        self.why = why
        """What the log says of the cause: the name of an error and its SQLSTATE, never its words."""
        self.fields = fields or ({self.field: str(self)} if self.field else {})
        """What is wrong with which field."""


class Refusal(ServiceError):
    """The request cannot be done as it is."""


class InvalidRequest(Refusal):
    """A field is not what it must be."""

    title = "The request is not right"
    message = "Check what you sent."


class CommandNotAccepted(InvalidRequest):
    """The pool does not run this command: it changed what it accepts while the request was checked."""

    title = "The pool does not run this command"
    message = "It changed what it accepts. Open the form again to see what that is now."
    field = "crd_command"


class KeyReused(Refusal):
    """The Idempotency-Key belongs to a different request."""

    title = "This Idempotency-Key was used before"
    message = "It belongs to a different request. Send that same request again, or this one with a new key."


class LeaseLive(Refusal):
    """This e-mail holds a lease already."""

    title = "This e-mail holds a machine or a place in the queue already"
    message = (
        "If it is yours, open it in the browser where you asked, or with the link that you kept (over the API: send "
        "its token). If you have neither, wait until it ends or ask your admin to end it."
    )


class NoToken(Refusal):
    """Nothing shows that the lease is the caller's."""

    title = "A token is needed"
    message = "Send the token that came with the lease: Authorization: Bearer …"


class NotAdmin(NoToken):
    """The token is no admin's. Whether it was one is not told."""

    title = "An admin's token is needed"
    message = (
        "Send it: Authorization: Bearer …. One that is unknown, expired or removed opens nothing. "
        "Who may log in to the database makes one: lablink admins add NAME"
    )


class NoSuchLease(Refusal):
    """There is no such lease, or it is somebody else's: which of the two is not told."""

    title = "No such lease"
    message = (
        "There is no such lease, or this token does not open it. If you were told that it is yours, it is gone: ask "
        "again."
    )


class NoSuchPool(Refusal):
    """There is no such pool."""

    title = "No such pool"
    message = "There is no such pool. Leave it out to get a machine of the usual kind."
    field = "pool"


class NoSuchVm(Refusal):
    """There is no such machine."""

    title = "No such machine"
    message = "There is no machine of this name. See which there are: GET /api/v1/vms"


class JoinRefused(Refusal):
    """The join token is unknown, used or expired."""

    title = "The join token is not accepted"
    message = "It is unknown, used or expired. Ask an admin to invite the machine again: lablink vms invite HOSTNAME."


class IllegalChange(Refusal):
    """The state machine has no such change."""

    title = "That cannot be done now"
    message = "Look again: it changed meanwhile."


class NothingAsked(Refusal):
    """The lease waits for no line."""

    title = "No line is needed now"
    message = "Look again: it changed meanwhile."


class NotLonger(Refusal):
    """The lease is not made longer now."""

    title = "It cannot be longer now"
    message = "Somebody waits for a machine, or it is as long as it may get. Save what you need before it ends."


class JoinCodeRefused(Refusal):
    """The join code lets nobody in: unknown, not open now, used up, or for another group than the person's."""

    title = "This code lets nobody in"
    message = (
        "Check it letter by letter. If it is right, it is not open now, it is used up, or you are in another "
        "group: then leave it out, or ask whoever gave it to you."
    )
    field = "join_code"


class MembersOnly(Refusal):
    """The pool is for members of a group that has a share in it, and this person is of none."""

    title = "These machines are for members of a group"
    message = "Give the workshop code that you were told, or ask whoever runs the course to put you on its list."
    field = "join_code"


class BudgetSpent(Refusal):
    """The pool's budget does not allow it this month."""

    title = "The budget for this month is used up"
    message = "What is left of it is too little for one more. Ask again next month, or ask your admin."


class FleetMissing(Refusal):
    """No machines in the cloud are configured."""

    title = "There is no fleet"
    message = "No machines in the cloud are configured here: see docs/operations.md."


class NoSuchOperation(Refusal):
    """There is no such operation."""

    title = "No such operation"
    message = "There is no operation of this number. See which there are: GET /api/v1/operations"


class OperationUnderWay(Refusal):
    """One operation runs at a time."""

    title = "Another operation runs"
    message = "One operation runs at a time: try again when it has ended."


class CrossSite(Refusal):
    """Another site sent this from the person's browser."""

    title = "Another site sent this"
    message = "Open the page itself and do it there."


class WrongHost(Refusal):
    """The browser was led here under a name that is not ours."""

    title = "This is not a name of this service"
    message = "Open it by its own address. Its admin sets that as server.public_url."


class TooLarge(Refusal):
    """The body is over the limit."""

    title = "That is too long"
    message = "Send less."


class TooSlow(Refusal):
    """The body did not come in time."""

    title = "That took too long"
    message = "The request was not here in time. Send it again, whole."


class WrongType(Refusal):
    """The body is not of a type that is read here."""

    title = "The content type is not right"
    message = "Send JSON, with Content-Type: application/json."


class Unavailable(ServiceError):
    """It may work in a moment: the answer says after how many seconds to try again."""

    retry_after: ClassVar[int] = 5


class DatabaseUnavailable(Unavailable):
    """The database does not answer."""

    title = "The database does not answer"
    message = "Machines that are lent go on working. Try again in a few seconds."


class Busy(Unavailable):
    """The database is there, but its answer took too long."""

    title = "Too much at once"
    message = "Try again in a moment."
    retry_after = 1


class Conflict(Busy):
    """Two changes met in the database; the same again is likely to work."""


class CloudAway(Unavailable):
    """AWS does not answer, or not with what was asked for."""

    title = "The cloud does not answer"
    message = "Try again in a few seconds."


class NotMigrated(Unavailable):
    """The database is older than this program."""

    title = "The database is not at this version of LabLink"
    message = "An admin has to run: lablink db migrate"
    retry_after = 10


class Outdated(Unavailable):
    """This program is older than the database allows: by more than one version."""

    title = "This allocator is too old for the database"
    message = "An admin has to start one of the database's version."
    retry_after = 10


class Stopping(Unavailable):
    """This allocator is about to stop."""

    title = "This allocator stops"
    message = "Another one will answer."
    retry_after = 1


class TooManyTokens(Unavailable):
    """Wrong tokens or codes came from there, one after the other."""

    title = "Too many wrong tokens"
    message = "Several tokens or codes that open nothing came from your address. Try again in a minute."
    retry_after = 60


class DatabaseFailed(ServiceError):
    """The database said something unexpected. Only its SQLSTATE is kept: its words may quote a person's data."""
