#!/bin/sh
# What the official image does at its start, as far as compose.yaml and testcontainers ask for it: data made once, with
# the superuser POSTGRES_USER, their password (POSTGRES_PASSWORD, or _FILE) and the database POSTGRES_DB; then the server.
set -eu
if [ "$(id -u)" = 0 ]; then
    install -d -o postgres -g postgres -m 700 "$PGDATA"
    install -d -o postgres -g postgres -m 2775 /run/postgresql
    exec setpriv --reuid=postgres --regid=postgres --init-groups "$0" "$@"
fi

user=${POSTGRES_USER:-postgres}
database=${POSTGRES_DB:-$user}
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    umask 077
    if [ -n "${POSTGRES_PASSWORD_FILE:-}" ]; then POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE"); fi
    printf '%s\n' "${POSTGRES_PASSWORD:?must be set, or POSTGRES_PASSWORD_FILE}" >/tmp/password
    initdb --username="$user" --pwfile=/tmp/password --encoding=UTF8 --locale=C.UTF-8 \
        --auth-local=trust --auth-host=scram-sha-256
    rm /tmp/password
    echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
    pg_ctl start --wait --options="-c listen_addresses=''"
    if [ "$database" != postgres ]; then createdb --username="$user" "$database"; fi
    pg_ctl stop --wait
fi
exec "$@" -c listen_addresses='*'
