#!/usr/bin/env bash
# The paper's ablations as a study: makes the runs that have no result yet, then tables and figures of all there are.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<EOF
Usage: bash examples/study.sh [--dry-run] [arguments of: python -m recipe.sophiavl.study run]

Makes every run of STUDY that has no result in RESULTS, and then writes tables and figures to OUT. Without a GPU two
cores make a run in two to three minutes (two at once, if there are 18 GB of memory). Interrupted, the same command goes
on where it was; after a change of STUDY it makes what is new, and never a run again. --dry-run lists the runs and what
is left, and starts nothing.

Environment (paths are relative to the repository):
  STUDY    the grid: variants x reward models x seeds   (default: examples/study/study.yaml)
  RESULTS  the raw results, a small file a run          (default: docs/study/results)
  OUT      tables and figures                           (default: docs/study)
  RUNS     the runs themselves: dumps, logs             (default: outputs/study)
  VENV     folder of the virtual environment            (default: .venv in the repository)
EOF
}
read_flags "$@"
[[ "$dry_run" != full ]] || stop "--dry-run=full: give --dry-run"
export VENV="${VENV:-$PWD/.venv}"          # folder of the virtual environment
STUDY="${STUDY:-examples/study/study.yaml}" # the grid
RESULTS="${RESULTS:-docs/study/results}"    # the raw results, a small file a run
OUT="${OUT:-docs/study}"                    # tables and figures
RUNS="${RUNS:-outputs/study}"               # the runs themselves

[[ -f "$STUDY" ]] || stop "STUDY=$STUDY does not exist"
[[ "$dry_run" != false ]] || bash examples/setup_cpu.sh
if [[ -f "$VENV/bin/activate" ]]; then
  source "$VENV/bin/activate"
elif [[ "$dry_run" == false ]]; then
  stop "$VENV is no virtual environment; bash examples/setup_cpu.sh makes it"
fi
export HF_HUB_OFFLINE=1
study=(python -m recipe.sophiavl.study run "$STUDY" --results "$RESULTS" --runs "$RUNS" "${arguments[@]}")
[[ "$dry_run" == false ]] || exec "${study[@]}" --dry-run

[[ -f outputs/easy_vqa_rows/train.parquet && -f outputs/easy_vqa_rows/val.parquet ]] ||
  python -m data_preprocess.easy_vqa --out outputs/easy_vqa_rows
state=0
"${study[@]}" || state=$?
[[ $state == 0 || $state == 1 ]] || exit "$state"
python -m recipe.sophiavl.study analyse "$RESULTS" --out "$OUT"
exit "$state"
