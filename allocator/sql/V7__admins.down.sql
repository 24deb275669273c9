-- Back to version 6: nobody is an admin over HTTP, and an operation runs or is over. What else is of that version comes with
-- its migrate.
DROP TABLE admins;
DROP FUNCTION add_admin(text, bytea, integer), remove_admin(text), admin_of(bytea), record_admin();

UPDATE operations SET status = 'failed', error = 'interrupted', finished_at = clock() WHERE status = 'waiting';
ALTER TABLE operations DROP COLUMN step;
-- squawk-ignore ban-drop-constraint
ALTER TABLE operations DROP CONSTRAINT operations_status_check, DROP CONSTRAINT operations_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE operations ADD CONSTRAINT operations_status_check CHECK (status IN ('running', 'done', 'failed'));
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE operations ADD CONSTRAINT operations_check CHECK ((status = 'running') = (finished_at IS NULL));
