-- Which instance showed a join token, which machines never came, and how long those that came took to boot.

ALTER TABLE join_tokens ADD COLUMN instance_id text;
ALTER TABLE join_tokens ADD COLUMN started_at timestamptz;
ALTER TABLE join_tokens ADD COLUMN missed_at timestamptz;
COMMENT ON COLUMN join_tokens.instance_id IS 'The EC2 instance that enrolled with it, as AWS has signed; null where none was shown.';
COMMENT ON COLUMN join_tokens.started_at IS 'When AWS says that the instance was started.';
COMMENT ON COLUMN join_tokens.missed_at IS 'When it was noticed that no machine came with it.';

CREATE TABLE boots (
    vm_id   integer,
    boot_id uuid,
    pool    text NOT NULL,
    at      timestamptz NOT NULL DEFAULT clock(),
    phases  jsonb NOT NULL,
    seconds numeric NOT NULL CHECK (seconds >= 0),
    PRIMARY KEY (vm_id, boot_id)
);
COMMENT ON TABLE boots IS 'One boot of a machine; the last twenty of each are kept.';
COMMENT ON COLUMN boots.phases IS 'What it did and for how many seconds, in turn: [["instance", 21.5], …]. Every word of it is the machine''s.';
-- The table is new: nobody waits for it.
-- squawk-ignore require-concurrent-index-creation
CREATE INDEX boots_of_pool ON boots (pool, at);
