-- Notifications: hints that something changed, never the change itself (anyone who can connect may listen and forge).

-- Sends the hints as JSON lists, so that no row count can abort the change: PostgreSQL takes 7,999 bytes at
-- most. A list has the hints that end within the same 6,000 bytes; the first may begin before them, and none is 1,000 long.
-- Most are one list, which takes no query to make.
CREATE OR REPLACE FUNCTION send_hints(p_channel text, p_hints text[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    batch text := array_to_string(p_hints, ',');
BEGIN
    IF octet_length(batch) BETWEEN 1 AND 5999 THEN
        batch := pg_notify(p_channel, '[' || batch || ']');  -- unlike PERFORM, an assignment is no query
        RETURN;
    END IF;
    FOR batch IN
        WITH sized AS (
            SELECT hint, at, sum(octet_length(hint) + 1) OVER (ORDER BY at) AS bytes
            FROM unnest(p_hints) WITH ORDINALITY AS h (hint, at) WHERE hint IS NOT NULL
        )
        SELECT '[' || string_agg(hint, ',' ORDER BY at) || ']' FROM sized GROUP BY bytes / 6000 ORDER BY min(at)
    LOOP
        PERFORM pg_notify(p_channel, batch);
    END LOOP;
END $$;

-- Hints at the machines whose name, status, epoch or lease changed; once a statement.
CREATE OR REPLACE FUNCTION notify_vm_changes() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        PERFORM send_hints('vm_updates', array_agg(vm_hint(n.id, n.hostname, n.status, n.epoch)))
        FROM new_rows n FULL JOIN old_rows o ON o.id = n.id
        WHERE (n.hostname, n.status, n.epoch, n.lease_id) IS DISTINCT FROM (o.hostname, o.status, o.epoch, o.lease_id);
    ELSIF TG_OP = 'INSERT' THEN
        PERFORM send_hints('vm_updates', array_agg(vm_hint(n.id, n.hostname, n.status, n.epoch))) FROM new_rows n;
    ELSE
        PERFORM send_hints('vm_updates', array_agg(vm_hint(o.id, o.hostname, 'deleted', o.epoch))) FROM old_rows o;
    END IF;
    RETURN NULL;
END $$;

-- The hint at a lease, as JSON; allocators listen, machines do not. A job is claimed only for the moment before it starts: nobody
-- is shown that (NULL), and every commit with a hint wakes all listeners and waits for all others with one.
CREATE OR REPLACE FUNCTION lease_hint(p_id uuid, p_status text, p_kind text) RETURNS text LANGUAGE sql STABLE
RETURN CASE WHEN p_status <> 'claimed' OR p_kind = 'desktop' THEN json_build_object('id', p_id, 'status', p_status)::text END;

-- The hint at one machine, as JSON.
CREATE OR REPLACE FUNCTION vm_hint(p_id integer, p_hostname text, p_status text, p_epoch bigint)
RETURNS text LANGUAGE sql STABLE
RETURN json_build_object('id', p_id, 'hostname', p_hostname, 'status', p_status, 'epoch', p_epoch)::text;

CREATE OR REPLACE TRIGGER vm_update_trigger AFTER UPDATE ON vms
    REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION notify_vm_changes();
CREATE OR REPLACE TRIGGER vm_insert_trigger AFTER INSERT ON vms
    REFERENCING NEW TABLE AS new_rows
    FOR EACH STATEMENT EXECUTE FUNCTION notify_vm_changes();
CREATE OR REPLACE TRIGGER vm_delete_trigger AFTER DELETE ON vms
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION notify_vm_changes();
