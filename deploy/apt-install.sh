#!/usr/bin/env bash
# Install Debian or Ubuntu packages, those that are missing. Needs root. Usage: apt-install.sh PACKAGE…
set -euo pipefail

missing=()
for package in "$@"; do
    status=$(dpkg-query --show --showformat='${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
    echo "skyrack needs ${missing[*]}: this machine has no apt-get, install them by hand" >&2
    exit 3
fi
if [ "$(id -u)" != 0 ]; then
    echo "skyrack needs ${missing[*]}: run this as root, or install them with apt-get" >&2
    exit 3
fi
export DEBIAN_FRONTEND=noninteractive
install=(apt-get install --yes --quiet --no-install-recommends -o DPkg::Lock::Timeout=300 -o Dpkg::Use-Pty=0)
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "installing ${missing[*]} …"
# A list that is missing or old is the usual cause of a failure: fetch it, and try once more.
if ! "${install[@]}" "${missing[@]}" </dev/null >"$log" 2>&1; then
    apt-get update --quiet -o DPkg::Lock::Timeout=300 </dev/null >"$log" 2>&1 || cat "$log" >&2
    if ! "${install[@]}" "${missing[@]}" </dev/null >"$log" 2>&1; then
        cat "$log" >&2
        echo "apt-get could not install ${missing[*]}: its words are above" >&2
        exit 3
    fi
fi
