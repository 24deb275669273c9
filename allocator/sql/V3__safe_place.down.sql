-- Back to version 2: the history in one table again, without seals. Archived months stay in their files.
DROP POLICY service_and_dashboards_see_all ON vms;
ALTER TABLE vms DISABLE ROW LEVEL SECURITY;
DROP MATERIALIZED VIEW usage_by_day;
DROP VIEW IF EXISTS vm_status, lease_history, waiting;

ALTER TABLE events RENAME TO events_in_months;
ALTER SEQUENCE events_id_seq RENAME TO events_in_months_id_seq;
CREATE TABLE events (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    at          timestamptz NOT NULL DEFAULT clock(),
    actor       text NOT NULL,
    db_role     name NOT NULL DEFAULT session_user,
    client_addr inet DEFAULT inet_client_addr(),
    kind        text NOT NULL,
    vm_id       integer,
    hostname    varchar(255),
    lease_id    uuid,
    detail      jsonb NOT NULL DEFAULT '{}'
);
COMMENT ON TABLE events IS 'What happened, who did it and why; written by triggers in the transaction of the change, never changed.';
INSERT INTO events (id, at, actor, db_role, client_addr, kind, vm_id, hostname, lease_id, detail) OVERRIDING SYSTEM VALUE
SELECT id, at, actor, db_role, client_addr, kind, vm_id, hostname, lease_id, detail FROM events_in_months;
SELECT setval('events_id_seq', last_value, is_called) FROM events_in_months_id_seq;

-- Functions of version 3 go; those of version 2, and views, read the one table.
DO $$
DECLARE
    ours text[] := regexp_split_to_array('
        add_event_month, append_seal, archive_month, broken_chain, broken_events, broken_history, event_line, event_month,
        event_months, events_to_seal, guard_event_months, history_head, seal_sha256, sealed_events, settle_events,
        sweep_months, sweep_seal, sweep_usage, unsealed_events', '[,\s]+');
    reader oid;
BEGIN
    EXECUTE (SELECT coalesce(format('DROP FUNCTION %s', string_agg(p.oid::regprocedure::text, ', ')), 'SELECT') FROM pg_proc p
             WHERE p.pronamespace = 'public'::regnamespace AND p.proname = ANY (ours));
    FOR reader IN SELECT DISTINCT r.ev_class FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
                  WHERE d.classid = 'pg_rewrite'::regclass AND d.refobjid = 'events_in_months'::regclass LOOP
        EXECUTE format('CREATE OR REPLACE VIEW %s AS %s', reader::regclass,
                       replace(pg_get_viewdef(reader), 'events_in_months', 'events'));
    END LOOP;
    FOR reader IN SELECT DISTINCT objid FROM pg_depend
                  WHERE classid = 'pg_proc'::regclass AND refobjid = 'events_in_months'::regclass LOOP
        EXECUTE replace(pg_get_functiondef(reader), 'events_in_months', 'events');
    END LOOP;
END $$;
DROP TABLE event_seals, event_sealing, event_archives;
DROP TABLE events_in_months;
ALTER TABLE events ADD PRIMARY KEY (id);
CREATE INDEX events_of_lease ON events (lease_id, id) WHERE lease_id IS NOT NULL;
CREATE INDEX events_of_vm ON events (vm_id, id) WHERE vm_id IS NOT NULL;
CREATE INDEX events_of_hostname ON events (hostname, id) WHERE hostname IS NOT NULL;
CREATE TRIGGER events_guard_trigger BEFORE UPDATE OR DELETE OR TRUNCATE ON events
    FOR EACH STATEMENT EXECUTE FUNCTION guard_events();
