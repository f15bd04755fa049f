#!/usr/bin/env bash
# Shows that lmms-eval, EvalScope and recipe.sophiavl.evaluate agree: the same questions, model, prompt and settings.
set -euo pipefail

usage() {
  cat <<'EOF'
Usage: bash examples/benchmarks/prove_agreement.sh [--dry-run]

Serves the quickstart's tiny policy with vLLM, without a GPU and without a hub, asks it the held-out easy-VQA questions
through lmms-eval, EvalScope and recipe.sophiavl.evaluate, and compares row by row (rescore.py). Fails where the
accuracies differ by more than DIFFERENCE. Not part of the test suite: it makes the two harnesses' environments (2.8 GB)
first. Then it takes two to five minutes on 2 cores.

  POLICY      model folder                                (default: examples/quickstart/models/policy)
  DATA        RL parquet                                  (default: outputs/easy_vqa_rows/val.parquet, made if missing)
  DIFFERENCE  most that accuracies may differ             (default: 0.005)
  VLMEVALKIT  a clone (vlmevalkit.sh --help), to have it compared too; it sends images as JPEG, so that answers may
              differ, and no difference fails                           (default: none)
EOF
}

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
OUT="${OUT:-outputs/benchmarks/agreement}"
CONCURRENCY="${CONCURRENCY:-16}"
MAX_TOKENS="${MAX_TOKENS:-512}"
LOCAL_DATA=""
source examples/common.sh
activate
source examples/benchmarks/settings.sh
source examples/benchmarks/harness.sh
POLICY="${POLICY:-examples/quickstart/models/policy}" # model folder
DATA="${DATA:-outputs/easy_vqa_rows/val.parquet}"     # RL parquet
DIFFERENCE="${DIFFERENCE:-0.005}"                     # most that accuracies may differ
VLMEVALKIT="${VLMEVALKIT:-}"                          # clone of VLMEvalKit

read_arguments "$@"
check_settings
export HF_HUB_OFFLINE=1 OUT CONCURRENCY MAX_TOKENS TEMPERATURE MODEL PROMPT PYTHON TORCH_INDEX
local_data="$OUT/local_data" server=""
trap '[[ -z "$server" ]] || stop_group "$server"' EXIT
trap 'exit 130' INT TERM
if [[ "$dry_run" == false ]]; then
  eval "$(python -m recipe.sophiavl.verl_support.environment)"
  rm -rf "$OUT"
  mkdir -p "$OUT"
  [[ -f "$DATA" || "$DATA" != outputs/easy_vqa_rows/val.parquet ]] || python -m data_preprocess.easy_vqa --out outputs/easy_vqa_rows
  port="$(free_port)"
  BASE_URL="http://127.0.0.1:$port/v1"
  OMP_NUM_THREADS="$SOPHIAVL_SERVER_THREADS" setsid vllm serve "$POLICY" --served-model-name "$MODEL" --host 127.0.0.1 \
    --port "$port" --dtype "$SOPHIAVL_CPU_DTYPE" --max-model-len 4096 --max-num-seqs 64 --enforce-eager \
    --generation-config vllm >"$OUT/server.log" 2>&1 &
  server=$!
  wait_for_server "http://127.0.0.1:$port/health" "$server" "$OUT/server.log" 300
fi
export BASE_URL

run python -m examples.benchmarks.local_data "$DATA" --out "$local_data"
run python -m recipe.sophiavl.evaluate "$BASE_URL" "$DATA" --model "$MODEL" --out "$OUT/evaluate" --max-tokens "$MAX_TOKENS" \
  --temperature "$TEMPERATURE" --system-prompt "@$prompt_file"
harnesses=(lmms_eval evalscope)
[[ -z "$VLMEVALKIT" ]] || harnesses+=(vlmevalkit)
for harness in "${harnesses[@]}"; do
  log="$OUT/$harness.log"
  show LOCAL_DATA="$local_data" bash "examples/benchmarks/$harness.sh"
  [[ "$dry_run" == true ]] || LOCAL_DATA="$local_data" bash "examples/benchmarks/$harness.sh" >"$log" 2>&1 ||
    { tail -n 20 "$log" >&2; stop "$harness.sh failed; its log is $log"; }
done
run python -m examples.benchmarks.rescore evaluate="$OUT/evaluate" lmms_eval="$OUT/lmms_eval" evalscope="$OUT/evalscope" \
  --questions "$local_data/questions.jsonl" --rows "$OUT/rows.jsonl" --max-difference "$DIFFERENCE"
[[ -z "$VLMEVALKIT" ]] || run python -m examples.benchmarks.rescore evaluate="$OUT/evaluate" vlmevalkit="$OUT/vlmevalkit" \
  --questions "$local_data/questions.jsonl"
