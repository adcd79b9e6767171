#!/usr/bin/env bash
# Prints where tests put temporary files: in memory, if 4 GiB of it are free and programs
# may be run from there. Tests make and drop databases all the time, and ext4 without a
# journal looks at all files deleted in the last minutes whenever it makes one, which was
# a third of the CPU that the ledger's tests took. TMPDIR says otherwise, if it is set.
set -euo pipefail

memory=/dev/shm
if [ -z "${TMPDIR:-}" ] && [ -w "$memory" ] &&
	[ "$(df --output=avail -k "$memory" | tail -1)" -ge $((4 << 20)) ] &&
	findmnt -no OPTIONS -T "$memory" | grep -qvw noexec; then
	echo "$memory"
else
	echo "${TMPDIR:-/tmp}"
fi
