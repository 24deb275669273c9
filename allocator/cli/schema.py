"""Facts about the schema that every installation must show: version, triggers, and who may do what."""

import re

import asyncpg

from allocator.migrations import function_files

Fact = dict[str, str]

TRIGGERS = """
    WITH wanted AS (SELECT * FROM unnest($1::text[], $2::text[]) AS w ("table", name)),
         present AS (SELECT c.relname::text AS "table", t.tgname::text AS name, t.tgenabled
                     FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
                     WHERE c.relnamespace = 'public'::regnamespace AND NOT t.tgisinternal
                       AND NOT c.relispartition)
    SELECT format('trigger %s on %s %s', name, "table",
                  CASE WHEN p.tgenabled IS NULL THEN 'is missing' WHEN w IS NULL THEN 'is not one of LabLink'
                       WHEN p.tgenabled = 'D' THEN 'is disabled' ELSE 'does not fire in every session' END)
    FROM wanted w FULL JOIN present p USING ("table", name)
    WHERE w IS NULL OR p.tgenabled IS DISTINCT FROM 'O'
    ORDER BY "table", name
"""

MACHINES_SEE_TABLES = """
    SELECT format('machines may %s %s', lower(g.privilege_type), g.table_name)
    FROM information_schema.role_table_grants g
    WHERE g.grantee IN ('lablink_client', 'PUBLIC') AND g.table_schema IN ('public', 'client_api')
"""

EVERYBODY_RUNS_FUNCTIONS = """
    SELECT format('everybody may run %s', p.oid::regprocedure)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    CROSS JOIN LATERAL aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    WHERE n.nspname IN ('public', 'client_api') AND a.grantee = 0 AND a.privilege_type = 'EXECUTE'
"""

LOOSE_DEFINERS = """
    SELECT format('%s runs as its owner with the caller''s search_path', p.oid::regprocedure)
    FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
    WHERE n.nspname IN ('public', 'client_api') AND p.prosecdef
      AND NOT EXISTS (SELECT FROM unnest(p.proconfig) AS setting WHERE setting LIKE 'search_path=pg_catalog%')
"""

STRONG_ROLES = """
    SELECT format('role %s has more power than it needs', r.rolname) FROM pg_roles r
    WHERE (r.rolname = 'lablink_app' OR EXISTS (
               SELECT FROM pg_auth_members m
               WHERE m.member = r.oid AND m.roleid = 'lablink_client'::regrole AND r.rolname <> 'lablink'))
      AND (r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolbypassrls OR r.rolreplication)
"""

CREATE_TRIGGER = re.compile(r"^CREATE OR REPLACE TRIGGER (\w+) [^;]*? ON (\w+)\s", re.MULTILINE)

CHECKS = {
    "grants": MACHINES_SEE_TABLES,
    "functions": EVERYBODY_RUNS_FUNCTIONS,
    "definers": LOOSE_DEFINERS,
    "roles": STRONG_ROLES,
}


async def broken_facts(connection: asyncpg.Connection) -> list[Fact]:
    """Each fact that does not hold, under the name of the check."""
    found = [{"rule": "triggers", "what": row[0]} for row in await connection.fetch(TRIGGERS, *_triggers())]
    for rule, query in CHECKS.items():
        found += [{"rule": rule, "what": row[0]} for row in await connection.fetch(query)]
    return found


def _triggers() -> tuple[list[str], list[str]]:
    """The tables and names of the triggers that every migrate makes."""
    made = [pair for file in function_files() for pair in CREATE_TRIGGER.findall(file.read_text())]
    return [table for _, table in made], [name for name, _ in made]
