#!/usr/bin/env bash
# The paper's benchmarks with VLMEvalKit, against a served checkpoint. It is no package: a clone that you make.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash examples/benchmarks/vlmevalkit.sh [--dry-run] [run.py flags, such as --retry 3]

VLMEvalKit is no package. Once, in an environment of its own:
  git clone https://github.com/open-compass/VLMEvalKit && cd VLMEvalKit && git checkout e8e78f0
  python3.11 -m venv .venv && .venv/bin/pip install -e .
then VLMEVALKIT=/path/to/VLMEvalKit bash examples/benchmarks/vlmevalkit.sh. --dry-run prints every command and the
prompt, and needs neither clone nor server.

Three commands: answer (--mode infer), take the bare answer out of <answer> (bare_answers.py; exact matching does not
know the tags), score (--mode eval). Without a JUDGE choices are matched exactly, and MathVista and MathVerse, which
refuse to score without a judge, are answered only: rescore.py scores them. So is LOCAL_DATA: its custom VQA has no rule.

  VLMEVALKIT         folder of the clone                (default: VLMEvalKit)
  VLMEVALKIT_PYTHON  interpreter of its environment     (default: VLMEVALKIT/.venv/bin/python)
EOF
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common.sh
source examples/benchmarks/settings.sh
source examples/benchmarks/harness.sh
VLMEVALKIT="${VLMEVALKIT:-$PWD/VLMEvalKit}"                              # folder of the clone
VLMEVALKIT_PYTHON="${VLMEVALKIT_PYTHON:-$VLMEVALKIT/.venv/bin/python}" # interpreter of its environment

declare -A datasets=(
  [MMMU]=MMMU_DEV_VAL [MME]=MME [MMStar]=MMStar [ChartQA]=ChartQA_TEST [MMBench]=MMBench_DEV_EN
  [MathVista]=MathVista_MINI
  [MathVerse]="MathVerse_MINI_Text_Dominant MathVerse_MINI_Text_Lite MathVerse_MINI_Vision_Intensive MathVerse_MINI_Vision_Dominant MathVerse_MINI_Vision_Only"
)

read_arguments "$@"
check_settings
show_server
echo "# clone: $VLMEVALKIT, with $VLMEVALKIT_PYTHON"
if [[ "$dry_run" == false ]]; then
  [[ -f "$VLMEVALKIT/run.py" ]] || stop "VLMEVALKIT=$VLMEVALKIT holds no run.py: see --help for how to clone it"
  [[ -x "$VLMEVALKIT_PYTHON" ]] || stop "VLMEVALKIT_PYTHON=$VLMEVALKIT_PYTHON is no interpreter: see --help"
fi
need_server
export LMDEPLOY_API_KEY="$OPENAI_API_KEY" # of the served model; the judge's is OPENAI_API_KEY
work="$OUT/vlmevalkit"

evaluate() { # evaluate MODE FLAGS...: in the clone
  local mode="$1"
  shift
  # PRED_FORMAT: a cell of .xlsx ends at 32,767 characters. MIN_IMAGE_EDGE: else it scales images up to edges of 100.
  run env -C "$VLMEVALKIT" PRED_FORMAT=tsv VLMEVAL_MIN_IMAGE_EDGE=1 "$@" --mode "$mode" --model "$MODEL" --base-url "$BASE_URL" \
    --extra-body "$(json system_prompt "@$prompt_file")" --temperature "$TEMPERATURE" --max-tokens "$MAX_TOKENS" \
    --timeout "$TIMEOUT" --api-nproc "$CONCURRENCY" --work-dir "$work" --reuse ${flags[@]+"${flags[@]}"}
}
kit=("$VLMEVALKIT_PYTHON" run.py)

echo "# system prompt ($PROMPT): $(<"$prompt_file")"
if [[ -n "$LOCAL_DATA" ]]; then # the folder must exist, or it is ignored without a word
  evaluate infer LMUData="$LOCAL_DATA/LMUData" "${kit[@]}" --data sophiavl_local
  exit
fi
answered="" scored=""
for name in $BENCHMARKS; do
  answered+=" ${datasets[$name]}"
  [[ -z "$JUDGE" && "$name" == Math* ]] || scored+=" ${datasets[$name]}"
done
judge=(--judge exact_matching)
[[ -z "$JUDGE" ]] || judge=(--judge "$JUDGE" --judge-base-url "$JUDGE_URL")
# shellcheck disable=SC2086  (several names)
evaluate infer "${kit[@]}" --data $answered
run python -m examples.benchmarks.bare_answers "$work"
# shellcheck disable=SC2086
[[ -z "$scored" ]] || evaluate eval "${kit[@]}" --data $scored "${judge[@]}"
