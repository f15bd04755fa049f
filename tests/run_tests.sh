#!/usr/bin/env bash
# Sets up the environment (no GPU needed) and runs all tests: lint, unit, integration and end to end on the real engine.
set -euo pipefail

usage() {
  cat <<EOF
Usage: bash tests/run_tests.sh [pytest arguments]

  bash tests/run_tests.sh                        everything
  bash tests/run_tests.sh -m "not e2e"           without the tests that start verl, Ray or vLLM

Environment:
  VENV  folder of the virtual environment (default: .venv in the repository)
EOF
}
[[ "${1:-}" == "--help" || "${1:-}" == "-h" ]] && { usage; exit 0; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
export VENV="${VENV:-$PWD/.venv}"  # folder of the virtual environment

bash examples/setup_cpu.sh
source "$VENV/bin/activate"
ruff check .
ruff format --check .
if (($#)); then
  exec python -m pytest "$@"
fi
# The unit tests share the cores; what starts engines then has the machine to itself.
failed=0
python -m pytest tests/unit --numprocesses auto --maxprocesses 4 --dist loadfile || failed=$?
python -m pytest tests/integration tests/e2e || failed=$?
exit "$failed"
