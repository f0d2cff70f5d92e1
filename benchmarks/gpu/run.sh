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
	# One wheel for another Python would keep pip from installing any.
	mapfile -t FITTING < <("$PYTHON" - "$WHEELS"/*.whl <<-'END'
		import sys
		from pathlib import Path
		from pip._vendor.packaging.tags import sys_tags
		from pip._vendor.packaging.utils import parse_wheel_filename
		tags = set(sys_tags())
		for path in sys.argv[1:]:
		    fits = not tags.isdisjoint(parse_wheel_filename(Path(path).name)[3])
		    print(path if fits else f"left out, since it is for another Python: {path}", file=sys.stdout if fits else sys.stderr)
	END
	)
	"$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --no-cache-dir --target "$SITE" "${FITTING[@]}"
	export PYTHONPATH="$SITE${PYTHONPATH:+:$PYTHONPATH}"
fi
if [ -n "${COMPILE:-}" ]; then
	"$PYTHON" setup.py --quiet build_ext --inplace || echo "not compiled: the hot path runs as Python" >&2
fi
"$PYTHON" benchmarks/gpu/run.py "$@"
