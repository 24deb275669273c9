-- Requests that come together are one statement: what looked at each alone is no more. Only request_vm called these.
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS check_acceptance(text, text, jsonb);
-- squawk-ignore ban-drop-function
DROP FUNCTION IF EXISTS earlier_request(text, bytea, bytea);
