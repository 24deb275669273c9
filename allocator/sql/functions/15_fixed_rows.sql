-- Rows that belong to the version of LabLink and not to its admin. V1 made the first of them, and a version once released
-- stays as it is: what holds now is here. Every migrate puts them right; nobody else changes them.

-- Refuses every change of such a row by hand.
CREATE OR REPLACE FUNCTION guard_fixed_rows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the rows of % come with LabLink''s version', TG_TABLE_NAME USING ERRCODE = 'LL003',
        HINT = 'Leave them; if they were changed all the same, this puts them right: lablink db migrate';
END $$;

CREATE OR REPLACE TRIGGER vm_transitions_guard_trigger BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON vm_transitions
    FOR EACH STATEMENT EXECUTE FUNCTION guard_fixed_rows();
CREATE OR REPLACE TRIGGER lease_transitions_guard_trigger BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON lease_transitions
    FOR EACH STATEMENT EXECUTE FUNCTION guard_fixed_rows();
CREATE OR REPLACE TRIGGER sweeps_guard_trigger BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON sweeps
    FOR EACH STATEMENT EXECUTE FUNCTION guard_fixed_rows();
CREATE OR REPLACE TRIGGER sealing_guard_trigger BEFORE DELETE OR TRUNCATE ON event_sealing
    FOR EACH STATEMENT EXECUTE FUNCTION guard_fixed_rows();
CREATE OR REPLACE TRIGGER counting_guard_trigger BEFORE DELETE OR TRUNCATE ON usage_counting
    FOR EACH STATEMENT EXECUTE FUNCTION guard_fixed_rows();

ALTER TABLE vm_transitions DISABLE TRIGGER vm_transitions_guard_trigger;
DELETE FROM vm_transitions;
INSERT INTO vm_transitions (from_status, to_status, epoch_rule) VALUES
    ('booting',   'available', '='),
    ('booting',   'cleaning',  '='),
    ('available', 'in-use',    '+'),
    ('available', 'cleaning',  '+'),
    ('in-use',    'cleaning',  '+'),
    ('cleaning',  'available', '='),
    ('failed',    'cleaning',  '='),
    ('booting',   'failed',    '+'),
    ('available', 'failed',    '+'),
    ('in-use',    'failed',    '+'),
    ('cleaning',  'failed',    '+'),
    ('booting',   'retired',   '+'),
    ('available', 'retired',   '+'),
    ('in-use',    'retired',   '+'),
    ('cleaning',  'retired',   '+'),
    ('failed',    'retired',   '+'),
    ('retired',   'booting',   '+');
ALTER TABLE vm_transitions ENABLE TRIGGER vm_transitions_guard_trigger;

ALTER TABLE lease_transitions DISABLE TRIGGER lease_transitions_guard_trigger;
DELETE FROM lease_transitions;
INSERT INTO lease_transitions (from_status, to_status) VALUES
    ('queued',   'assigned'),
    ('queued',   'failed'),
    ('queued',   'cancelled'),
    ('assigned', 'claimed'),
    ('assigned', 'queued'),
    ('assigned', 'failed'),
    ('assigned', 'cancelled'),
    ('claimed',  'active'),
    ('claimed',  'assigned'),
    ('claimed',  'queued'),
    ('claimed',  'failed'),
    ('claimed',  'cancelled'),
    ('active',   'assigned'),
    ('active',   'ended'),
    ('active',   'queued'),
    ('active',   'failed');
ALTER TABLE lease_transitions ENABLE TRIGGER lease_transitions_guard_trigger;

-- A row that is there may be locked by a sweep at this moment; it stays as it is.
ALTER TABLE sweeps DISABLE TRIGGER sweeps_guard_trigger;
INSERT INTO sweeps (name) VALUES ('lost'), ('deadlines'), ('queue'), ('secrets'), ('roles'),
    ('seal'), ('months'), ('usage'), ('forecasts'), ('schedules'), ('budgets'), ('idle'), ('checks') ON CONFLICT DO NOTHING;
ALTER TABLE sweeps ENABLE TRIGGER sweeps_guard_trigger;

-- How far the history is sealed, and use is counted. Begun anew, they find by themselves what they have already.
INSERT INTO event_sealing DEFAULT VALUES ON CONFLICT DO NOTHING;
INSERT INTO usage_counting DEFAULT VALUES ON CONFLICT DO NOTHING;

-- The pool of machines and requests that name none.
INSERT INTO pools (name) VALUES ('default') ON CONFLICT DO NOTHING;

-- Refuses to delete or rename that pool.
CREATE OR REPLACE FUNCTION guard_default_pool() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the pool default stays: machines and requests that name no pool are in it' USING ERRCODE = 'LL003',
        HINT = 'Another pool that nothing is in any more can go: DELETE FROM pools WHERE name = …';
END $$;

CREATE OR REPLACE TRIGGER pool_guard_trigger BEFORE DELETE OR UPDATE OF name ON pools
    FOR EACH ROW WHEN (OLD.name = 'default') EXECUTE FUNCTION guard_default_pool();

-- Refuses to delete or rename a pool that something is in, and says what to do with that.
CREATE OR REPLACE FUNCTION guard_used_pool() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    used text;
    todo text;
BEGIN
    SELECT string_agg(counted(n, what), ', '), string_agg(statement || quote_literal(OLD.name), '; ') INTO used, todo FROM (VALUES
        ('machine', 'UPDATE vms SET pool = ''default'' WHERE pool = ', (SELECT count(*) FROM vms WHERE pool = OLD.name)),
        ('invitation', 'DELETE FROM join_tokens WHERE pool = ', (SELECT count(*) FROM join_tokens WHERE pool = OLD.name)),
        ('fleet machine', 'UPDATE fleet_vms SET wanted = false WHERE pool = ', (SELECT count(*) FROM fleet_vms WHERE pool = OLD.name)),
        ('lease', 'DELETE FROM leases WHERE NOT live AND pool = ', (SELECT count(*) FROM leases WHERE pool = OLD.name))
    ) AS those (what, statement, n) WHERE n > 0;
    IF used IS NOT NULL AND (TG_OP = 'DELETE' OR NEW.name <> OLD.name) THEN
        RAISE EXCEPTION 'pool % has %', OLD.name, used USING ERRCODE = 'LL003', HINT = 'It may go or have another name when it is empty: ' || todo;
    END IF;
    RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;

CREATE OR REPLACE TRIGGER pool_guard_used_trigger BEFORE DELETE OR UPDATE OF name ON pools
    FOR EACH ROW WHEN (OLD.name <> 'default') EXECUTE FUNCTION guard_used_pool();
CREATE OR REPLACE TRIGGER pool_guard_truncate_trigger BEFORE TRUNCATE ON pools
    FOR EACH STATEMENT EXECUTE FUNCTION guard_default_pool();
