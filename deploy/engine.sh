#!/usr/bin/env bash
# Have a Docker Engine that answers: install it and start it where needed. Needs root, unless one answers already.
set -euo pipefail
cd "$(dirname "$0")/.."

start_deadline_s=60
log=/var/log/skyrack-dockerd.log

answers() {
    .venv/bin/python -c 'from controller.runtime.engine import ask_engine; ask_engine()' 2>/dev/null
}
wait_for_answer() {
    local until=$((SECONDS + start_deadline_s))
    while [ $SECONDS -lt $until ]; do
        if answers; then return 0; fi
        if [ -n "${1:-}" ] && ! kill -0 "$1" 2>/dev/null; then return 1; fi
        sleep 0.5
    done
    return 1
}
remove_stale_pid_file() { # a daemon that was killed leaves it, and its number may belong to somebody else by now
    local file=/var/run/docker.pid
    if [ -e "$file" ] && [ "$(cat "/proc/$(cat "$file")/comm" 2>/dev/null)" != dockerd ]; then
        rm -f "$file"
    fi
}
start_by_hand() {
    remove_stale_pid_file
    setsid dockerd "$@" </dev/null >>"$log" 2>&1 &
    wait_for_answer $!
}

if answers; then exit 0; fi
if [ "$(id -u)" != 0 ]; then
    why=$(.venv/bin/python -c 'from controller.runtime.engine import ask_engine; ask_engine()' 2>&1 | tail -n 1) || true
    echo "Docker Engine: ${why#*Error: }" >&2
    exit 3
fi
if ! command -v dockerd >/dev/null; then
    deploy/apt-install.sh docker.io
fi

echo "Docker Engine: starting it …"
if [ -d /run/systemd/system ]; then
    systemctl start docker || true
    if wait_for_answer; then exit 0; fi
    echo "Docker Engine does not answer: see 'systemctl status docker' and 'journalctl -u docker'" >&2
    exit 3
fi
if ! mountpoint -q /sys/fs/cgroup; then
    deploy/apt-install.sh cgroupfs-mount
    cgroupfs-mount
fi
if [ -x /etc/init.d/docker ]; then
    remove_stale_pid_file
    if service docker start </dev/null >/dev/null 2>&1 && wait_for_answer; then exit 0; fi
fi
if start_by_hand; then exit 0; fi
# Nodes have no network but the emulated one, so an engine that cannot set up a bridge will do.
if start_by_hand --bridge=none --iptables=false; then exit 0; fi
tail -n 20 "$log" >&2
echo "Docker Engine does not start: its last words are above, all of them in $log" >&2
exit 3
