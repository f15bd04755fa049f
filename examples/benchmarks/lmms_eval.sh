#!/usr/bin/env bash
# The paper's benchmarks with lmms-eval 0.7.3, against a served checkpoint.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash examples/benchmarks/lmms_eval.sh [--dry-run] [lmms-eval flags, such as --limit 8]

Makes an environment of its own (.venv-lmms-eval, 2 GB) on the first run. --dry-run prints every command and the
prompt, and needs neither environment nor server. Every answer is kept (--log_samples) for rescore.py.
Benchmark data comes from the Hugging Face hub. MathVista and MathVerse need a JUDGE; without one they are answered and
not scored: rescore.py scores them.

  LMMS_EVAL_VENV  folder of the environment (default: .venv-lmms-eval)
EOF
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
source examples/common.sh
source examples/benchmarks/settings.sh
source examples/benchmarks/harness.sh
LMMS_EVAL_VENV="${LMMS_EVAL_VENV:-$PWD/.venv-lmms-eval}" # folder of the environment

declare -A tasks=( # those that no judge is needed for have their own rules
  [MMMU]=mmmu_val [MME]=mme [MMStar]=mmstar [ChartQA]=chartqa [MMBench]=mmbench_en_dev_static
  [MathVista]=mathvista_testmini_format
  [MathVerse]=mathverse_testmini_text_dominant,mathverse_testmini_text_lite,mathverse_testmini_vision_intensive,mathverse_testmini_vision_dominant,mathverse_testmini_vision_only
)

read_arguments "$@"
check_settings
show_server
make_environment "$LMMS_EVAL_VENV" examples/benchmarks/requirements-lmms-eval.txt
need_server

# It reads the judge from the environment.
if [[ -n "$JUDGE" ]]; then
  export MODEL_VERSION="$JUDGE" API_TYPE=openai OPENAI_API_URL="$JUDGE_URL"
  echo "# judge: $JUDGE at $JUDGE_URL (MODEL_VERSION, OPENAI_API_URL)"
fi

evaluate() { # evaluate TASKS FLAGS...
  local names="$1"
  shift
  # max_pixels: 151,200 unless told. 0.7.3 applies it to videos alone and sends images as they are; another may not.
  # reasoning_tags: cuts all up to <answer>, and </answer>, so that the benchmark's own rule sees the bare answer.
  # max_new_tokens: the benchmarks' own, as few as 16, would cut the reasoning.
  run "$LMMS_EVAL_VENV/bin/python" -m lmms_eval --model async_openai \
    --model_args "model_version=$MODEL,base_url=$BASE_URL,system_prompt=$prompt_file,min_pixels=$MIN_PIXELS,max_pixels=$MAX_PIXELS,num_cpus=$CONCURRENCY,timeout=$TIMEOUT" \
    --gen_kwargs "max_new_tokens=$MAX_TOKENS,temperature=$TEMPERATURE" \
    --reasoning_tags '[["<think>", "<answer>"], ["</answer>", "</answer>"]]' \
    --tasks "$names" --log_samples --output_path "$OUT/lmms_eval" "$@" ${flags[@]+"${flags[@]}"}
}

echo "# system prompt ($PROMPT): $(<"$prompt_file")"
if [[ -n "$LOCAL_DATA" ]]; then
  export HF_HUB_OFFLINE=1 HF_DATASETS_CACHE="$OUT/cache"
  evaluate sophiavl_local --include_path "$LOCAL_DATA/lmms_eval"
else
  scored="" answered=""
  for name in $BENCHMARKS; do
    if [[ -z "$JUDGE" && "$name" == Math* ]]; then answered+=",${tasks[$name]}"; else scored+=",${tasks[$name]}"; fi
  done
  [[ -z "$scored" ]] || evaluate "${scored#,}"
  [[ -z "$answered" ]] || evaluate "${answered#,}" --predict_only
fi
