-- What may be done by hand to codes and PINs: they may be taken away, and then whoever waits for one is told.

-- A lease whose code was not delivered yet cannot begin without it: its holder is asked for a fresh line. A typed one fails.
CREATE OR REPLACE FUNCTION follow_secrets() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    waiting uuid[] := ARRAY(
        SELECT l.id FROM old_rows o JOIN leases l ON l.id = o.lease_id WHERE l.status IN ('queued', 'assigned') AND NOT l.needs_line);
BEGIN
    IF cardinality(waiting) > 0 THEN
        UPDATE leases SET trouble = 'code-expired', needs_line = kind = 'desktop',
               status = CASE kind WHEN 'desktop' THEN status ELSE 'failed' END,
               failure = CASE kind WHEN 'desktop' THEN NULL ELSE 'code-expired' END WHERE id = ANY (waiting);
    END IF;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER secret_follow_trigger AFTER DELETE ON lease_secrets
    REFERENCING OLD TABLE AS old_rows
    FOR EACH STATEMENT EXECUTE FUNCTION follow_secrets();
CREATE OR REPLACE TRIGGER secret_truncate_trigger BEFORE TRUNCATE ON lease_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- Refuses to change a code or PIN: what was accepted is what is delivered.
CREATE OR REPLACE FUNCTION guard_secrets() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'a code or PIN is never changed' USING ERRCODE = 'LL003',
        HINT = 'DELETE takes the code away; then its holder is asked for a fresh line.';
END $$;

CREATE OR REPLACE TRIGGER secret_guard_trigger BEFORE UPDATE ON lease_secrets
    FOR EACH STATEMENT EXECUTE FUNCTION guard_secrets();
