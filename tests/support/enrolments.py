"""The enrolment route over a real database, with an HTTP server that can lose an answer or be busy."""

import asyncio
import hashlib
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import asyncpg

from tests.support.database import Database


@dataclass(slots=True)
class Desk:
    """Where machines enrol. `mishaps` befall the next requests: "busy", "deaf" (not heard), "mute" (not answered)."""

    database: Database
    owner: "asyncpg.Connection[asyncpg.Record]"
    app: "asyncpg.Connection[asyncpg.Record]"
    url: str = ""
    mishaps: list[str] = field(default_factory=list)
    bodies: list[str] = field(default_factory=list)

    async def invite(self, hostname: str) -> str:
        """A join token for a machine of that name."""
        token = secrets.token_urlsafe(32)
        await self.owner.execute("SELECT invite_vm($1, 'default', $2, 3600)", hostname, _digest(token))
        return token

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length:")[1].split("\r\n")[0])
        self.bodies.append((await reader.readexactly(length)).decode())
        mishap = self.mishaps.pop(0) if self.mishaps else ""
        if mishap == "busy":
            writer.write(_answer(503, {"detail": "later"}))
        elif mishap != "deaf":
            answer = await self._enrolled(json.loads(self.bodies[-1]))
            writer.write(answer if mishap != "mute" else b"")
        writer.close()

    async def _enrolled(self, request: dict[str, str]) -> bytes:
        if request.keys() - {"token", "verifier", "identity"}:  # as an allocator does that knows no hub
            return _answer(422, {"detail": "Extra inputs are not permitted"})
        try:
            row = await self.app.fetchrow(
                "SELECT * FROM enrol_vm($1, $2)", _digest(request["token"]), request["verifier"]
            )
        except asyncpg.PostgresError as error:
            return _answer(403, {"detail": str(error)})
        assert row is not None
        place = urlsplit(self.database.dsn())
        database = {"host": place.hostname, "port": place.port, "database": self.database.name, "user": row["role"]}
        database |= {"tls": "loopback", "ca_pem": None}
        return _answer(
            201,
            {"vm_id": row["vm_id"], "hostname": row["hostname"], "transport": "direct", "database": database},
        )


def _answer(status: int, body: object) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status} -\r\nContent-Length: {len(content)}\r\nConnection: close\r\n\r\n"
    return head.encode() + content


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


@asynccontextmanager
async def enrolment_desk(database: Database) -> AsyncIterator[Desk]:
    """A place to enrol at."""
    desk = Desk(database, await database.connect("lablink"), await database.connect("lablink_app"))
    listener = await asyncio.start_server(desk.serve, "127.0.0.1", 0)
    desk.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    async with listener:
        yield desk
