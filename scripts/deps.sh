#!/usr/bin/env bash
# Installs what Tidegate and its tests need and this machine lacks, from Debian's
# packages, when it may (root, or sudo without a password). Elsewhere it says in
# one line what to install. It prints nothing when all is there.
#
#   scripts/deps.sh postgres psql cc chromium tesseract node npm redis python mypy
set -euo pipefail

has() { command -v "$1" >/dev/null 2>&1; }

# builds PYTHON: can it build a package?
builds() { has "$1" && "$1" -c 'import importlib.util as u, sys; sys.exit(None in map(u.find_spec, ("pip", "setuptools", "wheel", "venv")))'; }

# have NAME: is it there? Servers may be off the PATH, as the dev package knows.
have() {
	case $1 in
	postgres) has postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ||
		compgen -G '/opt/homebrew/opt/postgresql*/bin/postgres' >/dev/null ||
		compgen -G '/usr/local/opt/postgresql*/bin/postgres' >/dev/null ;;
	redis) has redis-server ;;
	python) builds python3 || builds /usr/bin/python3 ;; # which need not be the same
	chromium) has chromium-headless-shell || has chromium ;;
	*) has "$1" ;;
	esac
}

debian() {
	case $1 in
	postgres) echo postgresql ;;
	psql) echo postgresql-client ;;
	cc) echo gcc libc6-dev ;;
	chromium) echo chromium-headless-shell ;;
	tesseract) echo tesseract-ocr ;;
	node) echo nodejs ;;
	npm) echo npm ;;
	redis) echo redis-server ;;
	mypy) echo mypy ;;
	curl) echo curl ;;
	python) echo python3-pip python3-setuptools python3-wheel python3-venv ;;
	esac
}

homebrew() {
	case $1 in
	postgres | psql) echo postgresql@17 ;;
	cc) echo gcc ;;
	python) echo python ;;
	node | npm) echo node ;;
	*) echo "$1" ;;
	esac
}

missing=()
for name in "$@"; do
	case $name in
	postgres | psql | cc | chromium | tesseract | node | npm | redis | python | mypy | curl) have "$name" || missing+=("$name") ;;
	*)
		echo "scripts/deps.sh: unknown dependency: $name" >&2
		exit 2
		;;
	esac
done
if ! has go; then
	echo "Go 1.26 is missing: https://go.dev/dl/" >&2
	exit 1
fi
[ ${#missing[@]} -eq 0 ] && exit 0

if has brew; then
	echo "${missing[*]} missing: brew install $(for m in "${missing[@]}"; do homebrew "$m"; done | sort -u | xargs)" >&2
	exit 1
fi
packages=$(for m in "${missing[@]}"; do debian "$m"; done | xargs)
if ! has apt-get; then
	echo "${missing[*]} missing: install what Debian calls $packages" >&2
	exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
	if ! has sudo || ! sudo -n true 2>/dev/null; then
		echo "${missing[*]} missing: sudo apt-get install $packages" >&2
		exit 1
	fi
	sudo=(sudo -n)
fi

echo "installing $packages"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # packages is a list
if ! { "${sudo[@]}" apt-get update && "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $packages; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "apt-get could not install $packages" >&2
	exit 1
fi
for name in "${missing[@]}"; do
	if ! have "$name"; then
		echo "$name is still missing after apt-get install $packages" >&2
		exit 1
	fi
done
