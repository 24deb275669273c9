"""How a machine changes its password without ever being without one that works.

The new password is on the disk before its verifier is sent, and the old one stays until the new one has let the machine
in. So after a crash at any step, or a lost answer, one of the two does.
"""

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import asyncpg

from client import durable
from client.network import Connection
from client.scram import new_password, verifier
from client.settings import Credential, StateDir


@dataclass(slots=True)
class Passwords:
    """The password of a credential, and the one that may have taken its place. Nobody else writes the credential."""

    state: StateDir
    credential: Credential

    def to_try(self) -> list[str]:
        """What may let the machine in, the newest first."""
        begun = [self._begun()] if self.state.rotation.exists() else []
        return [*begun, self.credential.database.password]

    def begin(self) -> str:
        """The verifier of a new password, which is on the disk now. Raises OSError: then nothing has changed."""
        if not self.state.rotation.exists():
            durable.replace(self.state.rotation, json.dumps({"password": new_password()}).encode())
        return verifier(self._begun())

    def let_in_with(self, password: str) -> None:
        """That one is right. If it is the new one, the old one is forgotten."""
        if not self.state.rotation.exists() or password != self._begun():
            return  # a new one that was begun stays: the server may yet receive its verifier
        with suppress(OSError):  # it is in the other file until this one can be written
            self._keep(replace(self.credential, database=replace(self.credential.database, password=password)))
            durable.remove(self.state.rotation)

    def keep_transport(self, name: str) -> None:
        """The machine speaks so from now on, also when it starts again."""
        if name != self.credential.transport:
            with suppress(OSError):  # then it finds out again
                self._keep(replace(self.credential, transport=name))

    def _keep(self, credential: Credential) -> None:
        durable.replace(self.state.credential, json.dumps(asdict(credential), indent=1).encode())
        self.credential = credential

    def _begun(self) -> str:
        return str(json.loads(self.state.rotation.read_text())["password"])


async def changed_password(connection: Connection, passwords: Passwords) -> bool:
    """Change the password if an admin wants that. Returns whether the old one is worth nothing now.

    A disk that takes no new one puts it off, and so does a database that is older than this client. Where it was
    changed, or that failed, the connection is closed.
    """
    is_over = True
    try:
        is_over = await _changed(connection, passwords)
    finally:
        if is_over:
            connection.terminate()
    return is_over


async def _changed(connection: Connection, passwords: Passwords) -> bool:
    try:
        wanted = await connection.fetchval("SELECT client_api.wants_new_password()")
    except asyncpg.UndefinedFunctionError:
        return False
    if not wanted:
        return False
    try:
        verifier = passwords.begin()
    except OSError:
        return False
    return bool(await connection.fetchval("SELECT client_api.change_password($1)", verifier))
