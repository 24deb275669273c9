-- The guide's table and trigger as they are written there: the whole row in the payload, once a row.
CREATE TABLE vms (
    id          serial PRIMARY KEY,
    hostname    varchar(255) NOT NULL UNIQUE,
    email       varchar(255),
    status      varchar(50) NOT NULL,
    crd_command text,
    created_at  timestamp DEFAULT now(),
    updated_at  timestamp DEFAULT now()
);

CREATE FUNCTION notify_vm_changes() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('vm_updates', row_to_json(NEW)::text);
    RETURN NEW;
END $$;

CREATE TRIGGER vm_update_trigger AFTER INSERT OR UPDATE ON vms
    FOR EACH ROW EXECUTE FUNCTION notify_vm_changes();
