"""Facts about the schema that every installation must show: version, triggers, and who may do what."""

import asyncpg

Fact = dict[str, str]

TRIGGERS = """
    SELECT 'trigger ' || wanted.name || ' is missing or disabled'
    FROM unnest(ARRAY['vm_guard_trigger', 'vm_update_trigger', 'vm_insert_trigger', 'vm_delete_trigger',
                      'vm_truncate_trigger', 'lease_guard_trigger', 'events_guard_trigger']) AS wanted (name)
    LEFT JOIN pg_trigger t ON t.tgname = wanted.name AND t.tgenabled <> 'D' AND NOT t.tgisinternal
    WHERE t.oid IS NULL
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

CHECKS = {
    "triggers": TRIGGERS,
    "grants": MACHINES_SEE_TABLES,
    "functions": EVERYBODY_RUNS_FUNCTIONS,
    "definers": LOOSE_DEFINERS,
    "roles": STRONG_ROLES,
}


async def broken_facts(connection: asyncpg.Connection) -> list[Fact]:
    """Each fact that does not hold, under the name of the check."""
    found = []
    for rule, query in CHECKS.items():
        found += [{"rule": rule, "what": row[0]} for row in await connection.fetch(query)]
    return found
