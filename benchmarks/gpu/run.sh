#!/usr/bin/env bash
# Makes a machine with a GPU ready for run.py, and runs it with the same arguments; README.md beside this file says what the machine needs.
#   PYTHON=...   the interpreter, with a PyTorch of its own for CUDA; python3 if it is not set
#   WHEELS=...   folder with what that PyTorch's Python lacks; build/gpu_wheels if it is not set
#   COMPILE=1    compiles the hot path first, in place: a minute or two, a C compiler and the wheel of mypy
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
WHEELS=${WHEELS:-build/gpu_wheels}
if compgen -G "$WHEELS/*.whl" >/dev/null; then
	SITE=$(mktemp -d)
	trap 'rm -rf "$SITE"' EXIT
	"$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "$WHEELS"/*.whl
	export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ -n "${COMPILE:-}" ]; then
	"$PYTHON" setup.py --quiet build_ext --inplace
fi
"$PYTHON" benchmarks/gpu/run.py "$@"
