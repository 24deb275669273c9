-- The small tables around a machine: what may be done by hand to its heartbeat, its database role and its invitation.

-- A heartbeat goes with its machine; without one the machine would count as never heard.
CREATE OR REPLACE FUNCTION guard_heartbeat() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM vms WHERE id = OLD.vm_id) THEN
        RAISE EXCEPTION 'the heartbeat of machine % goes with the machine', OLD.vm_id USING ERRCODE = 'LL003',
            HINT = 'Delete the machine: DELETE FROM vms WHERE hostname = … A silent one is failed by itself.';
    END IF;
    RETURN OLD;
END $$;

CREATE OR REPLACE TRIGGER heartbeat_guard_trigger BEFORE DELETE ON vm_heartbeats
    FOR EACH ROW EXECUTE FUNCTION guard_heartbeat();
CREATE OR REPLACE TRIGGER heartbeat_truncate_trigger BEFORE TRUNCATE ON vm_heartbeats
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- This table says which roles the sweep may drop: machines' roles, each until it is gone.
CREATE OR REPLACE FUNCTION guard_vm_role() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
BEGIN
    IF TG_OP = 'INSERT' AND NEW.role ~ '^lablink_vm_[0-9a-f]{16}$'
       OR TG_OP = 'UPDATE' AND (NEW.role, NEW.created_at) = (OLD.role, OLD.created_at) THEN
        RETURN NEW;
    ELSIF TG_OP = 'DELETE' AND NOT EXISTS (SELECT FROM pg_roles WHERE rolname = OLD.role) THEN
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'roles of machines come when they enrol and go when they are retired' USING ERRCODE = 'LL003',
        HINT = 'Cut a machine off with: UPDATE vms SET status = ''retired'' WHERE hostname = …';
END $$;

CREATE OR REPLACE TRIGGER vm_role_guard_trigger BEFORE INSERT OR UPDATE OR DELETE ON vm_roles
    FOR EACH ROW EXECUTE FUNCTION guard_vm_role();
CREATE OR REPLACE TRIGGER vm_role_truncate_trigger BEFORE TRUNCATE ON vm_roles
    FOR EACH STATEMENT EXECUTE FUNCTION delete_before_truncate();

-- An invitation may be prolonged or withdrawn; it invites the same machine as long as it lasts, and once.
CREATE OR REPLACE FUNCTION guard_join_token() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'only expires_at of the invitation of % can change', OLD.hostname USING ERRCODE = 'LL003',
        HINT = 'Delete it and invite the machine again: lablink vms invite HOSTNAME.';
END $$;

CREATE OR REPLACE TRIGGER join_token_guard_trigger BEFORE UPDATE ON join_tokens
    FOR EACH ROW WHEN ((NEW.token_sha256, NEW.hostname, NEW.pool) IS DISTINCT FROM (OLD.token_sha256, OLD.hostname, OLD.pool)
        OR OLD.role IS NOT NULL AND (NEW.role, NEW.verifier_sha256) IS DISTINCT FROM (OLD.role, OLD.verifier_sha256))
    EXECUTE FUNCTION guard_join_token();
