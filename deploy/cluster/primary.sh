#!/bin/sh
# Runs once, when the primary makes its cluster: a role for standbys, and commits that wait
# until a standby has them too. Standbys are copies and have all this.
set -eu
psql --no-psqlrc --quiet --set=ON_ERROR_STOP=1 --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" <<'SQL'
\getenv password POSTGRES_REPLICATION_PASSWORD
create role replicator login replication password :'password';
alter system set synchronous_standby_names = 'ANY 1 (postgres_1, postgres_2)';
SQL
echo "host replication replicator all scram-sha-256" >>"$PGDATA/pg_hba.conf"
