#!/usr/bin/env bash
# Make .venv hold what requirements.lock says, and skyrack itself. Does nothing when it already does.
# Takes PYTHON (an interpreter to use) and SUDO (how to become root, when python3-venv must be installed).
set -euo pipefail
cd "$(dirname "$0")/.."

stamp=.venv/skyrack.stamp
wanted=$(cat requirements.lock pyproject.toml deploy/venv.sh | sha256sum | cut -d' ' -f1)
wanted="$wanted $(pwd)"
if [ -x .venv/bin/python ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
python=
for candidate in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
    if new_enough "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "skyrack needs Python 3.11 or newer, and finds none: install one, or name it with PYTHON=…" >&2
    exit 3
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import ensurepip' 2>/dev/null; then
    ${SUDO:-} deploy/apt-install.sh "python$version-venv"
fi

echo "virtual environment: installing the locked packages for Python $version …"
SECONDS=0
# One that works is brought up to date where it is: somebody may be using it.
if ! .venv/bin/python -m pip --version >/dev/null 2>&1 || ! new_enough .venv/bin/python; then
    "$python" -m venv --clear .venv
fi
pip=(.venv/bin/python -m pip install -qq --no-deps)
if ! "${pip[@]}" --no-compile --require-hashes --only-binary=:all: --requirement requirements.lock </dev/null; then
    echo "pip could not install what requirements.lock names: its words are above" >&2
    exit 3
fi
"${pip[@]}" --no-build-isolation --no-index --editable .
.venv/bin/python -m compileall -qq -j 0 .venv/lib || true # some packages carry files for other versions of Python
echo "$wanted" >"$stamp"
echo "virtual environment: ready after $SECONDS s"
