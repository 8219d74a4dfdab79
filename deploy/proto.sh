#!/usr/bin/env bash
# Generate the stubs of protos/ into a folder (the tree itself unless named). Usage: proto.sh [FOLDER]
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath "${1:-.}")
PATH="$PWD/.venv/bin:$PATH"
python -m grpc_tools.protoc --proto_path=. \
    --python_out="$out" --grpc_python_out="$out" --mypy_out=quiet:"$out" --mypy_grpc_out=quiet:"$out" \
    protos/skyrack/v1/*.proto
