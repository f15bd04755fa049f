#!/usr/bin/env bash
# The paper's benchmarks with EvalScope 1.14.1, against a served checkpoint.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash examples/benchmarks/evalscope.sh [--dry-run] [evalscope eval flags, such as --limit 8]

Makes an environment of its own (.venv-evalscope, 0.8 GB) on the first run. --dry-run prints every command and the
prompt, and needs neither environment nor server. Every answer is kept (predictions/) for rescore.py.
Benchmark data comes from ModelScope (--dataset-hub huggingface for the other hub). It has no MME of its own: that one
is left out here, lmms_eval.sh and vlmevalkit.sh have it. MathVerse asks the JUDGE, where there is one.

  EVALSCOPE_VENV  folder of the environment (default: .venv-evalscope)
EOF
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common.sh
source examples/benchmarks/settings.sh
source examples/benchmarks/harness.sh
EVALSCOPE_VENV="${EVALSCOPE_VENV:-$PWD/.venv-evalscope}" # folder of the environment

declare -A datasets=(
  [MMMU]=mmmu [MMStar]=mm_star [ChartQA]=chartqa [MMBench]=mm_bench [MathVista]=math_vista [MathVerse]=math_verse
)

read_arguments "$@"
check_settings
show_server
make_environment "$EVALSCOPE_VENV" examples/benchmarks/requirements-evalscope.txt
need_server

export EVALSCOPE_API_KEY="$OPENAI_API_KEY" # it reads this where --api-key is empty; no process list shows it

# Its rules look for the answer in what this leaves: the text of the last <answer>.
filters="$(json extract "$(json regex_pattern '(?s)<answer>(.*?)</answer>' group_select -1 fallback '[no answer]')")"
judge='{"strategy": "rule"}'
if [[ -n "$JUDGE" ]]; then
  judge="$(json strategy auto models "[$(json model_id "$JUDGE" api_url "$JUDGE_URL")]")"
fi

evaluate() { # evaluate DATASET-ARGS DATASETS...
  local arguments="$1"
  shift
  run "$EVALSCOPE_VENV/bin/evalscope" eval --model "$MODEL" --api-url "$BASE_URL" --api-key "" --eval-type openai_api \
    --generation-config "$(json temperature "$TEMPERATURE" max_tokens "$MAX_TOKENS" timeout "$TIMEOUT")" \
    --eval-batch-size "$CONCURRENCY" --judge "$judge" --datasets "$@" --dataset-args "$arguments" \
    --work-dir "$OUT/evalscope" --no-timestamp ${flags[@]+"${flags[@]}"}
}

echo "# system prompt ($PROMPT): $(<"$prompt_file")"
common=(system_prompt "@$prompt_file" filters "$filters")
if [[ -n "$LOCAL_DATA" ]]; then
  export HF_HUB_OFFLINE=1
  names=() arguments=()
  if [[ -d "$LOCAL_DATA/evalscope/vqa" ]]; then # scored by BLEU and ROUGE, or by a judge: rescore.py has our rule
    names+=(general_vqa)
    subsets="$(cd "$LOCAL_DATA/evalscope/vqa" && printf '"%s",' *.jsonl | sed 's/\.jsonl//g; s/,$//')"
    arguments+=(general_vqa "$(json local_path "$LOCAL_DATA/evalscope/vqa" subset_list "[$subsets]" "${common[@]}")")
  fi
  if [[ -d "$LOCAL_DATA/evalscope/vmcq" ]]; then # the options are part of the question already
    names+=(general_vmcq)
    arguments+=(general_vmcq "$(json local_path "$LOCAL_DATA/evalscope/vmcq" prompt_template '{question}' "${common[@]}")")
  fi
  evaluate "$(json "${arguments[@]}")" "${names[@]}"
else
  names=() arguments=()
  for name in $BENCHMARKS; do
    if [[ -z "${datasets[$name]:-}" ]]; then
      echo "# $name is left out: EvalScope has none of its own"
      continue
    fi
    names+=("${datasets[$name]}")
    if [[ "$name" == MMBench ]]; then extra=(subset_list '["en"]'); else extra=(); fi
    arguments+=("${datasets[$name]}" "$(json "${common[@]}" ${extra[@]+"${extra[@]}"})")
  done
  ((${#names[@]})) || stop "BENCHMARKS=$BENCHMARKS: nothing of it is left to run"
  evaluate "$(json "${arguments[@]}")" "${names[@]}"
fi
