"""Runs the service under uvicorn, and lets open pages go when it is told to stop."""

import socket

import uvicorn
from fastapi import FastAPI

from allocator.app import create_app
from allocator.config import Settings
from allocator.logs import configure
from client.network import keep_alive
from client.protocol import HUB_MESSAGE_BYTES

STOP_SECONDS = 5
"""How long requests under way may take to end."""


class Server(uvicorn.Server):
    """A uvicorn that lets machines go and ends the streams of pages first: it would wait for them, they for news."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, with sockets that send at once: those that are handed over are not told to by asyncio.

        What they accept inherits that, and that the kernel gives up a peer that is gone or takes nothing any more.
        """
        for listener in sockets or ():
            keep_alive(listener)
            if listener.family != socket.AF_UNIX:
                listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let machines go and end the streams, then stop as usual."""
        assert isinstance(self.config.app, FastAPI)
        if self.started:
            await self.config.app.state.service.hand_over()
        await super().shutdown(sockets)


def new_server(settings: Settings) -> Server:
    """A server of the service, to be run on sockets that listen already."""
    configure(settings.log)
    return Server(
        uvicorn.Config(
            create_app(settings),
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws="websockets-sansio",
            ws_max_size=HUB_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # 10,000 machines would have 10,000 compressors
            ws_ping_interval=None,  # machines ping: who is silent too long is forgotten anyway
            ssl_certfile=settings.server.certificate,
            ssl_keyfile=settings.server.key,
        )
    )
