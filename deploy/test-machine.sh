#!/usr/bin/env bash
# What the tests need beyond what skyrack needs. Needs root, unless it is all there.
set -euo pipefail
cd "$(dirname "$0")/.."

deploy/apt-install.sh iproute2 iputils-ping kmod
# A kernel with sch_netem, for machines whose own has none. Debian has it for amd64 and i386.
if [ ! -x /usr/bin/linux.uml ]; then
    if apt-cache show user-mode-linux >/dev/null 2>&1 || apt-get update --quiet >/dev/null; then
        if apt-cache show user-mode-linux >/dev/null 2>&1; then
            deploy/apt-install.sh user-mode-linux
        fi
    fi
fi
if [ -x /usr/bin/linux.uml ]; then
    if grep -q amx_tile /proc/cpuinfo && [ ! deploy/uml-xstate.c -ot .cache/uml-xstate.so ]; then
        echo "User-Mode Linux: making it fit this processor …"
        deploy/apt-install.sh gcc libc6-dev
        mkdir -p .cache
        gcc -O2 -shared -fPIC -o .cache/uml-xstate.so deploy/uml-xstate.c
    fi
    exit 0
fi
echo "user-mode-linux is not on offer for this machine: tests of netem run on its own kernel, or fail"
