#!/bin/sh
# Starts a standby: where there is no database yet, it copies that of the primary,
# POSTGRES_PRIMARY. POSTGRES_NAME is its own name in synchronous_standby_names.
set -eu
if [ ! -s "$PGDATA/PG_VERSION" ]; then
	PGAPPNAME="$POSTGRES_NAME" PGPASSWORD="$POSTGRES_REPLICATION_PASSWORD" pg_basebackup --host="$POSTGRES_PRIMARY" \
		--username=replicator --pgdata="$PGDATA" --wal-method=stream --checkpoint=fast --write-recovery-conf
fi
exec docker-entrypoint.sh "$@"
