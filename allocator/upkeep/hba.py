"""Writes a pg_hba.conf for a server of one's own: who may log in from where; from elsewhere never without TLS."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

from allocator import bootstrap

MACHINES = f"+{bootstrap.CLIENTS}"
EVERYONE = f"{bootstrap.SERVICE},{bootstrap.READER},{MACHINES}"

HEAD = """\
# Who may log in to LabLink's database. Made by `lablink db hba`; the first line that fits decides.
# Everybody has a SCRAM password; from elsewhere they come by TLS only. What no line names is refused.
# postgresql.conf needs: ssl = on, ssl_cert_file, ssl_key_file, password_encryption = scram-sha-256.
# After a change: SELECT pg_reload_conf(); SELECT * FROM pg_hba_file_rules WHERE error IS NOT NULL;"""


class NotANetwork(Exception):
    """What was given is not a network in CIDR notation."""


@dataclass(frozen=True, slots=True)
class Networks:
    """From where each may come, in CIDR notation. This machine may always."""

    machines: Sequence[str] = ()
    service: Sequence[str] = ()
    owner: Sequence[str] = ()
    reader: Sequence[str] = ()


def pg_hba(networks: Networks, database: str = bootstrap.DATABASE, superuser: str = "postgres") -> str:
    """The whole file. Raises NotANetwork.

    The owner belongs to the machines' group, because it admits members to it: so it is refused wherever it may not come
    from before the group is let in.
    """
    lines = [
        "# The superuser, from this machine: by the socket as the user of that name, or with a password.",
        _line("local", "all", superuser, "", "peer"),
        *_here("all", superuser),
        "",
        "# From this machine. The owner also makes scratch databases: lablink db verify, rehearse, restore.",
        _line("local", "all", bootstrap.OWNER, "", "scram-sha-256"),
        *_here("all", bootstrap.OWNER),
        _line("local", database, EVERYONE, "", "scram-sha-256"),
        *_here(database, EVERYONE),
        "",
        "# From elsewhere.",
        *_remote("all", bootstrap.OWNER, networks.owner),
        _line("host", "all", bootstrap.OWNER, "all", "reject"),
        *_remote(database, bootstrap.SERVICE, networks.service),
        *_remote(database, bootstrap.READER, networks.reader),
        *_remote(database, MACHINES, networks.machines),
        "",
        "# Nobody else.",
        _line("local", "all", "all", "", "reject"),
        _line("host", "all", "all", "all", "reject"),
    ]
    return "\n".join([HEAD, "", *lines, ""])


def _here(database: str, role: str) -> list[str]:
    return [_line("host", database, role, address, "scram-sha-256") for address in ("127.0.0.1/32", "::1/128")]


def _remote(database: str, role: str, networks: Sequence[str]) -> list[str]:
    return [_line("hostssl", database, role, _network(each), "scram-sha-256") for each in networks]


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise NotANetwork(f"{text} is not a network such as 10.0.0.0/16 ({error}).") from error
    if network.prefixlen == 0:
        raise NotANetwork(f"{text} is the whole internet: give the network that the machines are in.")
    return str(network)


def _line(kind: str, database: str, user: str, address: str, method: str) -> str:
    return f"{kind:<8}{database:<14} {user:<50} {address:<20} {method}"
