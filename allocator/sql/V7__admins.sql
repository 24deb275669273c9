-- Admins who come over the HTTP API; operations that say what they are at, and that wait without being in the way.

CREATE TABLE admins (
    name         text PRIMARY KEY,
    token_sha256 bytea NOT NULL UNIQUE,
    created_at   timestamptz NOT NULL DEFAULT clock(),
    expires_at   timestamptz NOT NULL,
    last_used_at timestamptz,
    CONSTRAINT admins_name_is_one CHECK (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$'),
    CONSTRAINT admins_token_is_hashed CHECK (octet_length(token_sha256) = 32)
);
COMMENT ON TABLE admins IS 'Who may use the HTTP API as an admin: lablink admins add NAME.';
COMMENT ON COLUMN admins.token_sha256 IS 'All that is known of the token, which was shown once.';
COMMENT ON COLUMN admins.last_used_at IS 'To the minute.';

ALTER TABLE operations ADD COLUMN step text;
COMMENT ON COLUMN operations.step IS 'What it is at, while it runs.';
-- There are some hundred rows, and nobody writes to them but an operation.
-- squawk-ignore ban-drop-constraint
ALTER TABLE operations DROP CONSTRAINT operations_status_check, DROP CONSTRAINT operations_check;
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE operations ADD CONSTRAINT operations_status_check CHECK (status IN ('waiting', 'running', 'done', 'failed'));
-- squawk-ignore constraint-missing-not-valid
ALTER TABLE operations ADD CONSTRAINT operations_check CHECK ((status IN ('waiting', 'running')) = (finished_at IS NULL));
