-- What each of the roles $1 (one of them may be 'public') may do with each object: kind, object, place of the role, may.
-- The partitions of a table come and go with their months: what may be done with one may be done with all.
WITH schemas AS (
    SELECT oid, nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
),
relations AS (
    SELECT c.oid, c.relkind, n.nspname || '.' || regexp_replace(c.relname, '\d{4}_\d{2}$', 'MONTH') AS name
    FROM pg_class c JOIN schemas n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'v', 'm', 'S', 'p', 'f')
),
objects (kind, object, oid, attnum, privileges) AS (
    SELECT 'database', CASE datname WHEN current_database() THEN 'this database' ELSE datname::text END, oid, NULL::smallint,
           ARRAY['CONNECT', 'CREATE', 'TEMPORARY']
    FROM pg_database WHERE datname IN (current_database(), 'postgres', 'template1')
    UNION ALL
    SELECT 'schema', nspname, oid, NULL, ARRAY['USAGE', 'CREATE'] FROM schemas
    UNION ALL
    SELECT 'sequence', name, oid, NULL, ARRAY['USAGE', 'SELECT', 'UPDATE'] FROM relations WHERE relkind = 'S'
    UNION ALL
    SELECT CASE WHEN relkind IN ('v', 'm') THEN 'view' ELSE 'table' END, name, oid, NULL,
           ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']
           || CASE WHEN current_setting('server_version_num')::integer >= 170000 THEN ARRAY['MAINTAIN'] END
    FROM relations WHERE relkind <> 'S'
    UNION ALL
    SELECT 'column', r.name || '.' || a.attname, r.oid, a.attnum, ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']
    FROM pg_attribute a JOIN relations r ON r.oid = a.attrelid
    WHERE a.attnum > 0 AND NOT a.attisdropped
      AND EXISTS (SELECT FROM pg_attribute granted WHERE granted.attrelid = r.oid AND granted.attacl IS NOT NULL)
    UNION ALL
    SELECT 'function', n.nspname || '.' || p.proname || '(' || pg_get_function_identity_arguments(p.oid) || ')',
           p.oid, NULL, ARRAY['EXECUTE']
    FROM pg_proc p JOIN schemas n ON n.oid = p.pronamespace
    UNION ALL
    -- Of PostgreSQL's own only those of which we took or gave something; their arguments change with its versions.
    SELECT 'function', 'pg_catalog.' || p.proname, p.oid, NULL, ARRAY['EXECUTE']
    FROM pg_proc p
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proacl IS DISTINCT FROM (
        SELECT initprivs FROM pg_init_privs i WHERE i.objoid = p.oid AND i.classoid = 'pg_proc'::regclass)
    UNION ALL
    SELECT 'type', n.nspname || '.' || t.typname, t.oid, NULL, ARRAY['USAGE']
    FROM pg_type t JOIN schemas n ON n.oid = t.typnamespace WHERE t.typtype IN ('d', 'e', 'r', 'b') AND t.typelem = 0
    UNION ALL
    SELECT 'role', rolname, oid, NULL, ARRAY['MEMBER'] FROM pg_roles
    WHERE rolname ~ '^pg_' OR rolname IN ('lablink', 'lablink_app', 'lablink_reader', 'lablink_client')
)
SELECT kind, object, place, string_agg(DISTINCT p, ' ' ORDER BY p) FILTER (WHERE CASE kind
    WHEN 'database' THEN has_database_privilege(role, oid, p)
    WHEN 'schema' THEN has_schema_privilege(role, oid, p)
    WHEN 'sequence' THEN has_sequence_privilege(role, oid, p)
    WHEN 'column' THEN has_column_privilege(role, oid, attnum, p)
    WHEN 'function' THEN has_function_privilege(role, oid, p)
    WHEN 'type' THEN has_type_privilege(role, oid, p)
    WHEN 'role' THEN CASE WHEN role <> 'public' THEN pg_has_role(role, oid, p) END
    ELSE has_table_privilege(role, oid, p) END) AS may
FROM objects, unnest($1::text[]) WITH ORDINALITY AS asked (role, place), unnest(privileges) AS p
GROUP BY kind, object, place ORDER BY kind, object, place
