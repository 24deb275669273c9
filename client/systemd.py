"""What the client tells the systemd that started it (sd_notify(3)): that it serves, that it gets on, that it stops."""

import os
import socket
from contextlib import suppress

READY = "READY=1"
ALIVE = "WATCHDOG=1"
STOPPING = "STOPPING=1"


def tell_systemd(*words: str) -> None:
    """Send one datagram, for nobody where no systemd waits for it; one that cannot be sent changes nothing here."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as to:
        to.sendto("\n".join(words).encode(), address.replace("@", "\0", 1) if address[0] == "@" else address)
