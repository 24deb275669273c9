-- What the schemas public and client_api consist of, one fact a row: kind, name, the table that it belongs to, how it is
-- defined. Left out: what belongs to an extension, and partitions, of which each database has its own.
WITH ours AS (
    SELECT oid, nspname, nspowner, nspacl FROM pg_namespace WHERE nspname IN ('public', 'client_api')
), extended AS (
    SELECT classid, objid FROM pg_depend WHERE deptype = 'e'
), relations AS (
    SELECT c.*, c.oid::regclass::text AS title,
           CASE c.relkind WHEN 'v' THEN 'view' WHEN 'm' THEN 'view' WHEN 'S' THEN 'sequence' WHEN 'c' THEN 'type'
                          WHEN 'i' THEN 'index' WHEN 'I' THEN 'index' ELSE 'table' END AS kind
    FROM pg_class c JOIN ours o ON o.oid = c.relnamespace
    WHERE NOT c.relispartition AND c.relpersistence <> 't'
      AND NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_class'::regclass AND e.objid = c.oid)
), functions AS (
    SELECT p.*, p.oid::regprocedure::text AS title FROM pg_proc p JOIN ours o ON o.oid = p.pronamespace
    WHERE NOT EXISTS (SELECT FROM extended e WHERE e.classid = 'pg_proc'::regclass AND e.objid = p.oid)
), grants AS (
    SELECT 'schema ' || nspname AS title, nspowner AS owner,
           coalesce(nspacl, acldefault('n', nspowner)) AS acl FROM ours
    UNION ALL
    SELECT kind || ' ' || title, relowner,
           coalesce(relacl, acldefault(CASE kind WHEN 'sequence' THEN 's'::"char" ELSE 'r'::"char" END, relowner))
    FROM relations WHERE kind IN ('table', 'view', 'sequence')
    UNION ALL
    SELECT 'column ' || r.title || '.' || a.attname, r.relowner, a.attacl
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid WHERE a.attacl IS NOT NULL AND NOT a.attisdropped
    UNION ALL
    SELECT 'function ' || title, proowner, coalesce(proacl, acldefault('f', proowner)) FROM functions
), facts AS (
    SELECT 'schema' AS kind, nspname::text AS name, NULL::text AS of_table,
           'owner ' || CASE nspname WHEN 'public' THEN 'of the database' ELSE nspowner::regrole::text END AS definition
    FROM ours
    UNION ALL
    SELECT kind, title, CASE WHEN kind <> 'index' THEN title END,
           concat_ws(' ', 'owner', relowner::regrole, relkind, relpersistence,
                     CASE WHEN relrowsecurity THEN 'row security' END, CASE WHEN relforcerowsecurity THEN 'forced' END,
                     CASE WHEN relkind = 'v' THEN reloptions::text END, CASE WHEN kind = 'view' THEN pg_get_viewdef(oid) END)
    FROM relations WHERE kind <> 'index'
    UNION ALL
    SELECT 'index', r.title, i.indrelid::regclass::text,
           pg_get_indexdef(i.indexrelid) || CASE WHEN i.indisvalid THEN '' ELSE ' invalid' END
    FROM relations r JOIN pg_index i ON i.indexrelid = r.oid
    UNION ALL
    SELECT 'column', r.title || '.' || a.attname, r.title,
           concat_ws(' ', format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN 'not null' END,
                     nullif(a.attidentity, ''), nullif(a.attgenerated, ''), pg_get_expr(d.adbin, d.adrelid))
    FROM relations r JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE r.kind IN ('table', 'type', 'view')
    UNION ALL
    SELECT 'constraint', k.conname || ' on ' || r.title, r.title,
           pg_get_constraintdef(k.oid) || CASE WHEN k.convalidated THEN '' ELSE ' not valid' END
    FROM pg_constraint k JOIN relations r ON r.oid = k.conrelid WHERE k.contype NOT IN ('n', 't')
    UNION ALL
    SELECT 'trigger', t.tgname || ' on ' || r.title, r.title,
           pg_get_triggerdef(t.oid) || CASE t.tgenabled WHEN 'O' THEN '' WHEN 'D' THEN ' disabled' ELSE ' enabled otherwise' END
    FROM pg_trigger t JOIN relations r ON r.oid = t.tgrelid WHERE NOT t.tgisinternal
    UNION ALL
    SELECT 'rule', w.rulename || ' on ' || r.title, r.title, pg_get_ruledef(w.oid)
    FROM pg_rewrite w JOIN relations r ON r.oid = w.ev_class WHERE w.rulename <> '_RETURN'
    UNION ALL
    SELECT 'policy', p.policyname || ' on ' || p.schemaname || '.' || p.tablename, p.schemaname || '.' || p.tablename,
           concat_ws(' ', p.permissive, p.roles, p.cmd, p.qual, 'check', p.with_check)
    FROM pg_policies p WHERE p.schemaname IN ('public', 'client_api')
    UNION ALL
    SELECT 'function', title, NULL,
           concat_ws(' ', 'owner', proowner::regrole, l.lanname, f.prokind, f.provolatile, f.proparallel,
                     CASE WHEN f.prosecdef THEN 'security definer' END, CASE WHEN f.proisstrict THEN 'strict' END,
                     f.proconfig::text, pg_get_function_arguments(f.oid), pg_get_function_result(f.oid),
                     coalesce(pg_get_function_sqlbody(f.oid), f.prosrc))
    FROM functions f JOIN pg_language l ON l.oid = f.prolang
    UNION ALL
    SELECT 'default', concat_ws(' ', 'rights on new', CASE d.defaclobjtype WHEN 'r' THEN 'tables' WHEN 'S' THEN 'sequences' WHEN 'f'
           THEN 'functions' WHEN 'T' THEN 'types' ELSE 'schemas' END, 'of', d.defaclrole::regrole,
           'in ' || nullif(d.defaclnamespace, 0)::regnamespace), NULL,
           d.defaclacl::text
    FROM pg_default_acl d WHERE (d.defaclnamespace = 0 OR d.defaclnamespace IN (SELECT oid FROM ours))
      AND NOT starts_with(d.defaclrole::regrole::text, 'lablink_')  -- they make nothing, and any role may set its own
    UNION ALL
    SELECT 'grant', format('%s may %s %s', CASE a.grantee WHEN 0 THEN 'everybody' ELSE a.grantee::regrole::text END,
                           a.privilege_type, g.title), NULL,
           CASE WHEN a.is_grantable THEN 'and pass it on' ELSE '' END
    FROM grants g CROSS JOIN LATERAL aclexplode(g.acl) a WHERE a.grantee <> g.owner
)
SELECT kind, name, of_table, definition FROM facts ORDER BY kind, name
