-- Back to version 7: each request comes alone. What else is of that version comes with its migrate.
DROP FUNCTION request_vms(text[], text[], jsonb[], jsonb[], text[], bytea[], bytea[], bytea[], bytea[], text[], text),
    open_requests(uuid[], text[], text[], text[], jsonb[], text[], bytea[], bytea[], bytea[], bytea[]),
    request_before(text, bytea, bytea), refused_requests(text[], text[], jsonb[]), refuse_request(text, text);
