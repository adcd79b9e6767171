#!/bin/sh
# Runs once, when docker-compose.yml's Postgres makes its cluster: Tidegate gets a role of
# its own, which owns its database and is no superuser. The superuser has no password from
# then on, so that only this container reaches it:
#
#   docker compose exec postgres psql --username=postgres tidegate
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv password POSTGRES_PASSWORD
create role tidegate login password :'password';
create database tidegate owner tidegate;
revoke connect, temporary on database tidegate from public;
alter role current_user password null;
SQL
