#!/usr/bin/env bash
# Runs go test with the given arguments and prints a line for each package, the output of
# what failed, the totals and the ten slowest tests. It fails as go test does, and also
# when a test was skipped or none ran: neither proves anything.
set -euo pipefail

events=$(mktemp)
trap 'rm -f "$events"' EXIT
code=0
go tool gotestsum --format pkgname --format-icons text --format-hide-empty-pkg --jsonfile "$events" -- "$@" || code=$?

echo "slowest:"
go tool gotestsum tool slowest --jsonfile "$events" --threshold 1s |
	awk '$2 !~ "/" && n++ < 10 { printf "%10s  %s  %s\n", $3, $2, $1 }' # a test's time includes its subtests'

if grep -q '"Action":"skip".*"Test":' "$events"; then
	echo "a test was skipped"
	code=1
elif ! grep -q '"Action":"pass".*"Test":' "$events"; then
	echo "no test has passed"
	code=1
fi
exit "$code"
