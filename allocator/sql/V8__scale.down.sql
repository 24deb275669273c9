-- Back to version 7: machines speak to PostgreSQL. What else is of that version comes with its migrate.
DROP FUNCTION hub_call(bytea, text, text), hub_hello(bytea[], bigint[], uuid[]), hub_wishes(oid, text), speak_for(bytea),
    hub_change_password(text, bytea), keep_present_hub_tokens(name[], bytea[]), give_hub_token(name, bytea),
    keep_hub_token(bytea, text, bytea),
    ensure_transport(text, text), client_api.transport(), client_api.keep_hub_token(bytea), client_api.change_password(text),
    hub_callers(bytea[]), hub_welcome(bytea[], bigint[], uuid[]), hub_claim(bytea[], bigint[]), speak_for_many(),
    hub_report(bytea[], uuid[], bigint[], text[], integer[], text[], text[]), hub_cleaned(bytea[], bigint[]),
    reported(leases, text, integer, text, text);
DROP FUNCTION check_version(integer), cancel_operation(bigint, text);

DROP TRIGGER pool_odd_transport_trigger ON pools;
ALTER TABLE operations DROP COLUMN cancelled_by;
ALTER TABLE vm_roles DROP COLUMN hub_sha256;
ALTER TABLE pools DROP COLUMN transport;
