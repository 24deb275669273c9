"""The naive allocator, as a process: one HTTP endpoint that looks for a free machine and then takes it."""

import asyncio
import socket
from typing import Any

import asyncpg
import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from tests.bench.options import CONNECTIONS
from tests.bench.sides.guide import GIVE_BACK, LOOK
from tests.bench.workers import Ready, be_worker

TAKE = """
    UPDATE vms SET status = 'in-use', email = $2, crd_command = $3, updated_at = now() WHERE hostname = $1
    RETURNING txid_current()::text
"""


class Request(BaseModel):
    """What a person asks."""

    email: str
    crd_command: str


def naive_app(pool: "asyncpg.Pool[asyncpg.Record]") -> FastAPI:
    """The endpoint, and the one that gives a machine back."""
    app = FastAPI()

    @app.post("/api/request_vm")
    async def request_vm(request: Request) -> dict[str, str]:
        hostname = await pool.fetchval(LOOK)
        if hostname is None:
            raise HTTPException(503, "no VM is available")
        transaction = await pool.fetchval(TAKE, hostname, request.email, request.crd_command)
        return {"hostname": hostname, "transaction": transaction}

    @app.post("/api/release/{hostname}")
    async def release(hostname: str) -> None:
        await pool.execute(GIVE_BACK, hostname)

    return app


async def serve(task: dict[str, Any], ready: Ready, stop: asyncio.Event) -> None:
    """Serve until told to stop; says the port once it listens."""
    async with asyncpg.create_pool(task["dsn"], min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does it only where proto is given
            config = uvicorn.Config(naive_app(pool), log_level="warning", access_log=False, lifespan="off")
            server = uvicorn.Server(config)
            serving = asyncio.create_task(server.serve(sockets=[listener]))
            ready(listener.getsockname()[1])
            await stop.wait()
            server.should_exit = True
            await serving


if __name__ == "__main__":
    be_worker(serve)
