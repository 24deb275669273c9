"""What must be so around the schema: the server's version and settings, roles and who belongs to whom, TLS."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import asyncpg

from allocator import bootstrap
from allocator.config import BESIDE
from allocator.upkeep import tune
from client.network import Connection, is_loopback

OLDEST = 15
ONE_ALLOCATOR = 10 + BESIDE
"""Connections of an allocator, unless it is told otherwise."""

FOR_ADMINS = 8
"""Connections that must be left when every machine and the service have theirs: PostgreSQL's own three, and people."""

SETTINGS = {
    "fsync": ("on", "a power cut can destroy the database"),
    "full_page_writes": ("on", "a power cut can destroy the database"),
    "synchronous_commit": ("on local remote_write remote_apply", "a crash forgets requests that were accepted"),
    "password_encryption": ("scram-sha-256", "a new password would be kept as MD5"),
    "session_replication_role": ("origin", "triggers, which keep the rules, do not run"),
    "row_security": ("on", "queries fail instead of being limited to what a role may see"),
    "max_prepared_transactions": ("0", "a machine can leave a transaction and its locks behind, and be gone"),
    "server_encoding": ("UTF8", "not every name can be stored"),
}
"""What each must be, of the words given, and what happens otherwise."""

OVERRIDDEN = """
    SELECT coalesce('role ' || r.rolname, 'database ' || d.datname) AS whose, c AS setting
    FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = s.setrole LEFT JOIN pg_database d ON d.oid = s.setdatabase
    CROSS JOIN unnest(s.setconfig) AS c
    WHERE (s.setdatabase = 0 OR d.datname = current_database()) AND (s.setrole = 0 OR starts_with(r.rolname, 'lablink'))
      AND split_part(c, '=', 1) IN ('search_path', 'synchronous_commit', 'session_replication_role', 'row_security',
                                    'default_transaction_read_only', 'role', 'lablink.actor')
    ORDER BY 1, 2
"""

ROLES = """
    SELECT rolname, rolsuper, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls, rolconnlimit,
           starts_with(rolname, 'lablink_vm_') AS of_machine, oid = 10 AS first
    FROM pg_roles WHERE starts_with(rolname, 'lablink') ORDER BY rolname
"""

MEMBERS = """
    SELECT m.member::regrole::text AS member, m.roleid::regrole::text AS of_role
    FROM pg_auth_members m JOIN pg_roles r ON r.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
    WHERE starts_with(r.rolname, 'lablink') AND (r.rolname <> $1 OR g.rolname = ANY ($2))
       OR starts_with(g.rolname, 'lablink') AND NOT r.rolsuper
    ORDER BY 1, 2
"""

OF_THE_SYSTEM = {"pg_execute_server_program", "pg_read_server_files", "pg_write_server_files"}
"""Groups whose members do what the server's own account may. Before PostgreSQL 16 the owner may join them by itself."""

HARMLESS_GROUPS = {"pg_monitor", "pg_read_all_settings", "pg_read_all_stats", "pg_stat_scan_tables"}

CONNECTS = """
    SELECT r, has_database_privilege(r, current_database(), 'CONNECT') AS may
    FROM unnest($1::text[]) AS r JOIN pg_roles ON rolname = r
    UNION ALL
    SELECT 'everybody', EXISTS (SELECT FROM pg_database, aclexplode(coalesce(datacl, acldefault('d', datdba)))
                                WHERE datname = current_database() AND grantee = 0)
"""

UNENCRYPTED = """
    SELECT a.usename::text AS role, host(a.client_addr) AS address, count(*) AS n
    FROM pg_stat_activity a JOIN pg_stat_ssl s USING (pid)
    WHERE a.datname = current_database() AND NOT s.ssl AND NOT a.client_addr <<= '127.0.0.0/8'
      AND a.client_addr <> '::1' AND a.client_addr IS DISTINCT FROM inet_server_addr()
    GROUP BY 1, 2 ORDER BY 1, 2
"""

OLD_EXTENSIONS = """
    SELECT e.extname::text AS name FROM pg_extension e JOIN pg_available_extensions a ON a.name = e.extname
    WHERE e.extversion <> a.default_version ORDER BY 1
"""

COLLATION = """
    SELECT datcollversion AS made, pg_database_collation_actual_version(oid) AS now
    FROM pg_database WHERE datname = current_database()
"""

OPEN_RULES = """
    SELECT line_number AS line, type, coalesce(address, '') AS address, auth_method FROM pg_hba_file_rules
    WHERE error IS NULL AND auth_method <> 'reject' AND (
        auth_method IN ('trust', 'password', 'md5', 'ident') AND type <> 'local'
        OR type IN ('host', 'hostnossl') AND address NOT IN ('127.0.0.1', '::1', 'localhost', 'samehost'))
    ORDER BY line_number
"""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be, or (not `wrong`) that an admin may want to know."""

    rule: str
    what: str
    cure: str
    wrong: bool = True


Findings = AsyncIterator[Finding]


async def server(connection: Connection) -> Findings:
    """Its version, and settings on which promises rest."""
    version = connection.get_server_version().major
    if version < OLDEST:
        yield Finding("version", f"PostgreSQL {version} is too old.", f"lablink db move to {OLDEST} or newer")
    names = list(SETTINGS)
    for row in await connection.fetch("SELECT name, setting FROM pg_settings WHERE name = ANY ($1)", names):
        good, otherwise = SETTINGS[row["name"]]
        if row["setting"] not in good.split():
            cure = f"ALTER SYSTEM SET {row['name']} = '{good.split()[0]}'; SELECT pg_reload_conf()"
            yield Finding("settings", f"{row['name']} is {row['setting']}: {otherwise}.", cure)
    for row in await connection.fetch(OVERRIDDEN):
        kind, _, name = row["whose"].partition(" ")
        cure = f"ALTER {kind.upper()} {name} RESET {row['setting'].partition('=')[0]}"
        yield Finding("settings", f"{row['setting']} is set for {row['whose']}.", cure)


async def room(connection: Connection, service_connections: int) -> Findings:
    """Whether everybody may connect at once: each machine, the service, and somebody who looks after it."""
    most, machines = await tune.max_connections(connection), await tune.machines(connection)
    needed = machines + service_connections + FOR_ADMINS
    if most < needed:
        what = f"max_connections is {most}, but {machines} machines and the service need {needed}."
        yield Finding("settings", what, f"lablink db tune --connections {tune.connections_for(machines)}")


async def roles(connection: Connection) -> Findings:
    """LabLink's roles: there, with the powers they need and no others."""
    found = {row["rolname"]: row for row in await connection.fetch(ROLES)}
    for missing in bootstrap.ATTRIBUTES.keys() - found.keys():
        yield Finding("roles", f"The role {missing} is missing.", "lablink db deploy")
    for name, row in found.items():
        if row["first"]:  # initdb made it, as images do that are given a user's name; its powers cannot be taken away
            what = f"The role {name} is the server's first superuser: its password opens all of the server."
            yield Finding(
                "roles", what, "Have another superuser when you next make a server: lablink db move", wrong=False
            )
            continue
        who = "As a superuser: " if name in bootstrap.ATTRIBUTES else ""  # the owner made the others
        for power, cure in _powers(row):
            yield Finding("roles", f"The role {name} {power}.", f"{who}ALTER ROLE {name} {cure}")
    async for finding in _memberships(connection):
        yield finding


def _powers(row: asyncpg.Record) -> list[tuple[str, str]]:
    """What a role may and should not, or the other way round, with the attribute that mends it."""
    wanted = bootstrap.ATTRIBUTES.get(row["rolname"], "LOGIN NOCREATEROLE NOCREATEDB").split()
    has = {"LOGIN": row["rolcanlogin"], "CREATEROLE": row["rolcreaterole"], "CREATEDB": row["rolcreatedb"]}
    never = {"SUPERUSER": row["rolsuper"], "REPLICATION": row["rolreplication"], "BYPASSRLS": row["rolbypassrls"]}
    powers = [(f"has {name}, which it must not", f"NO{name}") for name, there in never.items() if there]
    powers += [(f"has {name}, which it must not", f"NO{name}") for name in has if has[name] and name not in wanted]
    if not row["of_machine"]:  # one whose credential was revoked, or that is about to be dropped, cannot log in
        powers += [(f"lacks {name}", name) for name in has if not has[name] and name in wanted]
    limit = 3 if row["of_machine"] else bootstrap.READERS_AT_ONCE if row["rolname"] == bootstrap.READER else None
    if limit and row["rolconnlimit"] < 0:
        powers.append(("may open any number of connections", f"CONNECTION LIMIT {limit}"))
    return powers


async def _memberships(connection: Connection) -> Findings:
    """Who belongs to whom. Only the owner's powers may be somebody's who is not LabLink's: a managed master user."""
    for row in await connection.fetch(MEMBERS, bootstrap.OWNER, OF_THE_SYSTEM):
        member, group = row["member"], row["of_role"]
        fits = group == bootstrap.CLIENTS and (member.startswith("lablink_vm_") or member == bootstrap.OWNER)
        fits = fits or (member == bootstrap.READER and group in HARMLESS_GROUPS)
        fits = fits or (member == bootstrap.OWNER and group not in OF_THE_SYSTEM)
        if not fits:
            ours = member.startswith("lablink")
            what = f"{member} is a member of {group} and may do what that role may."
            yield Finding("roles", what, f"REVOKE {group} FROM {member}, unless it is meant.", wrong=ours)


async def doors(connection: Connection) -> Findings:
    """Who may connect to the database, and whether what they send can be read on the way."""
    names = [bootstrap.SERVICE, bootstrap.READER, bootstrap.CLIENTS]
    for row in await connection.fetch(CONNECTS, names):
        if row["r"] == "everybody" and row["may"]:
            yield Finding("grants", "Everybody may connect to this database.", "lablink db deploy")
        elif row["r"] != "everybody" and not row["may"]:
            yield Finding("grants", f"{row['r']} may not connect to this database.", "lablink db deploy")
    for row in await connection.fetch(UNENCRYPTED):
        what = f"{row['role']} is connected from {row['address']} without TLS."
        yield Finding("tls", what, "Require it on the server: lablink db hba, or rds.force_ssl = 1.")
    async for finding in _listening(connection):
        yield finding


async def _listening(connection: Connection) -> Findings:
    shown = "SELECT current_setting('ssl') AS ssl, current_setting('listen_addresses') AS addresses, {} AS forced"
    row = await connection.fetchrow(shown.format("current_setting('rds.force_ssl', true)"))
    assert row is not None
    far = [address for each in row["addresses"].split(",") if (address := each.strip()) and not is_loopback(address)]
    if row["ssl"] != "on" and far:
        what = f"The server accepts connections from elsewhere ({', '.join(far)}) and has no TLS."
        yield Finding("tls", what, "Give it a certificate (ssl = on), or listen on localhost only.")
    if row["forced"] is not None and row["forced"] not in ("1", "on"):
        yield Finding("tls", "The server accepts connections without TLS.", "Set rds.force_ssl = 1.")
    try:
        rules = await connection.fetch(OPEN_RULES)
    except asyncpg.InsufficientPrivilegeError:  # only a superuser may read them
        return
    for rule in rules:
        what = f"Line {rule['line']} of pg_hba.conf lets in {rule['type']} {rule['address']} by {rule['auth_method']}."
        yield Finding("tls", what, "lablink db hba prints one that does not.")


async def leftovers(connection: Connection) -> Findings:
    """What an upgrade of the server or of its operating system leaves to be done."""
    for row in await connection.fetch(OLD_EXTENSIONS):
        cure = f"ALTER EXTENSION {row['name']} UPDATE"
        yield Finding("extensions", f"The extension {row['name']} is of an earlier version.", cure, wrong=False)
    collation = await connection.fetchrow(COLLATION)
    if collation and collation["made"] not in (None, collation["now"]):
        what = f"Text was sorted by another version of the collation ({collation['made']}, now {collation['now']})."
        database = await connection.fetchval("SELECT quote_ident(current_database())")
        yield Finding(
            "collation", what, f"lablink db reindex, then ALTER DATABASE {database} REFRESH COLLATION VERSION"
        )


CHECKS: tuple[Callable[[Connection], Findings], ...] = (server, doors, leftovers)
