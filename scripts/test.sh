#!/usr/bin/env bash
# Install the package with its test extra into a fresh virtual environment and run the whole test suite.
# Arguments go to pytest: bash scripts/test.sh tests/ops -k scan
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh

rm -rf .venv-test
echo "Installing mambair[test] into .venv-test ..."
make_environment .venv-test '[test]'
"$python" -m ruff check .
"$python" -m mypy
# One thread per process: the tests run side by side, one process a core.
export OMP_NUM_THREADS=1
"$python" -m pytest --numprocesses auto --dist loadscope "$@"
