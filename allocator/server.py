"""Runs the service under uvicorn, and lets open pages go when it is told to stop."""

import asyncio
import socket
from functools import partial
from typing import cast

import structlog
import uvicorn
from fastapi import FastAPI

from allocator.app import create_app
from allocator.config import Settings
from allocator.doorman import Doorman
from allocator.http1 import Http1
from allocator.logs import configure
from allocator.service import Service
from allocator.sockets import MachineSocket
from client.network import keep_alive
from client.protocol import HUB_MESSAGE_BYTES

ACCEPTED_AT_ONCE = 32
"""How many connections are accepted each turn of the loop; whatever else is to be done waits for them."""

BACKLOG = 2048
"""How many the kernel keeps until then."""

IDLE_SECONDS = 75
"""How long a connection is kept that nobody asks anything over: longer than load balancers keep theirs (nginx and AWS's
a minute, by themselves). Were it ended here first, a request that comes at that moment would be lost."""

LOOK_SECONDS = 0.1
STOP_SECONDS = 5
"""How long requests under way may take to end."""

log = structlog.get_logger()


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
        for listener in sockets or ():
            listener.listen(BACKLOG)  # asyncio has set it to the number that it accepts at once

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let load balancers notice, machines go and streams end, then stop as usual."""
        assert isinstance(self.config.app, FastAPI)
        if self.started:
            service: Service = self.config.app.state.service
            await self._linger(service)
            await service.hand_over()
        await super().shutdown(sockets)

    async def _linger(self, service: Service) -> None:
        """Serve on for a while, with /readyz saying no. A second Ctrl-C ends that, and the service ends as usual."""
        service.leaving.set()
        now, seconds = asyncio.get_running_loop().time, service.settings.server.linger_seconds
        log.info("service.leaving", seconds=seconds, machines=service.hub.machines, pages=service.feed.subscribers)
        until = now() + seconds
        while now() < until and not self.force_exit:  # noqa: ASYNC110  # which is all that a signal sets
            await asyncio.sleep(LOOK_SECONDS)
        self.force_exit = False


def new_server(settings: Settings) -> Server:
    """A server of the service, to be run on sockets that listen already."""
    configure(settings.log)
    app = create_app(settings)
    app.state.doorman = doorman = Doorman()
    return Server(
        uvicorn.Config(
            app,
            loop="asyncio",  # also where uvloop is installed: what is accepted and how sockets wait is asyncio's here
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=IDLE_SECONDS,
            timeout_graceful_shutdown=STOP_SECONDS,
            ws=MachineSocket,
            ws_max_size=HUB_MESSAGE_BYTES,
            ws_per_message_deflate=False,  # 10,000 machines would have 10,000 compressors
            backlog=ACCEPTED_AT_ONCE,
            http=cast("type[asyncio.Protocol]", partial(Http1, doorman)),
            ws_ping_interval=None,  # machines ping
            ssl_certfile=settings.server.certificate,
            ssl_keyfile=settings.server.key,
        )
    )
