"""Runs the service under uvicorn, and lets open pages go when it is told to stop."""

import socket

import uvicorn

from allocator.app import create_app
from allocator.config import Settings
from allocator.logs import configure

STOP_SECONDS = 5
"""How long requests under way may take to end."""


class Server(uvicorn.Server):
    """A uvicorn that ends the streams of open pages first: it would wait for them, and they for news."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End the streams, then stop as usual."""
        self.config.app.state.service.feed.end_streams()  # type: ignore[union-attr]
        await super().shutdown(sockets)


def serve(settings: Settings, fd: int | None = None) -> bool:
    """Serve until told to stop, on the open socket `fd` or on the configured host and port; whether it ever started."""
    configure(settings.log)
    config = uvicorn.Config(
        create_app(settings),
        host=settings.server.host,
        port=settings.server.port,
        fd=fd,
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    server = Server(config)
    server.run()
    return server.started
