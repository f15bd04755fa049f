#!/usr/bin/env bash
# The thinking reward model's whole pipeline on a machine without a GPU, with tiny models on easy-VQA:
# collect, annotate, filter and balance, train, serve, evaluate (arXiv 2505.17018, sections 3.1 and 3.2).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<HELP
Usage: bash examples/trm_pipeline_cpu.sh [--fresh] [--dry-run]

A GRPO run leaves its rollouts, a judge by rule behind a real HTTP endpoint scores them, what is left after filtering
and balancing trains a tiny Qwen2.5-VL (examples/quickstart/models/trm_base), and both the untrained and the trained
model are served and evaluated on held-out questions. Run again to continue: finished stages are kept; --fresh starts
over. --dry-run prints the commands of the stages, and what is there already.

Environment:
  RUN_DIR        folder of everything that is made    (default: outputs/trm_pipeline)
  DATA_DIR       RL parquet files, as the quickstart  (default: outputs/easy_vqa_rows)
  COLLECT_STEPS  GRPO steps to collect rollouts from  (default: 4)
  EPOCHS         epochs of the SFT                    (default: 8)
  VENV           folder of the virtual environment    (default: .venv in the repository)
HELP
}
read_flags "$@"
fresh=false
if [[ "${arguments[0]:-}" == --fresh ]]; then fresh=true arguments=("${arguments[@]:1}"); fi
[[ ${#arguments[@]} -eq 0 ]] || { usage >&2; stop "unknown argument ${arguments[0]}"; }
export VENV="${VENV:-$PWD/.venv}"          # folder of the virtual environment
RUN_DIR="${RUN_DIR:-outputs/trm_pipeline}" # folder of everything that is made
COLLECT_STEPS="${COLLECT_STEPS:-4}"        # GRPO steps to collect rollouts from
EPOCHS="${EPOCHS:-8}"                      # epochs of the SFT
DATA_DIR="${DATA_DIR:-outputs/easy_vqa_rows}"   # RL parquet files, shared with the quickstart
POLICY=examples/quickstart/models/policy
TRM_BASE=examples/quickstart/models/trm_base # stands in for the pretrained model that a TRM is trained from
PROMPT=examples/quickstart/trm_prompt.yaml

[[ "$dry_run" != false ]] || bash examples/setup_cpu.sh
[[ -f "$VENV/bin/activate" ]] || stop "$VENV is no virtual environment; bash examples/setup_cpu.sh makes it"
source "$VENV/bin/activate"
export HF_HUB_OFFLINE=1
eval "$(python -m recipe.sophiavl.verl_support.environment)"
settings="COLLECT_STEPS=$COLLECT_STEPS EPOCHS=$EPOCHS DATA_DIR=$DATA_DIR"
if [[ "$dry_run" == false ]]; then
  [[ "$fresh" == false ]] || rm -rf "$RUN_DIR"
  mkdir -p "$RUN_DIR"
  [[ -f "$RUN_DIR/settings" ]] || echo "$settings" >"$RUN_DIR/settings"
fi
[[ "$fresh" == true || ! -f "$RUN_DIR/settings" || "$(<"$RUN_DIR/settings")" == "$settings" ]] ||
  stop "$RUN_DIR was made with $(<"$RUN_DIR/settings"): set these again, give another RUN_DIR, or start over with --fresh"

server="" judge="" job=""
cleanup() {
  trap - EXIT INT TERM
  for group in $job $server $judge; do stop_group "$group"; done
}
trap cleanup EXIT
trap 'echo; echo "Stopping. Run the same command again to go on."; exit 130' INT TERM

# made FILE: whether it is there; in a dry run of --fresh, which removes nothing, it counts as removed
made() { [[ -e "$1" && ( "$dry_run" == false || "$fresh" == false ) ]]; }

# stage NAME FILE COMMAND...: runs a command unless FILE, which it makes, exists; its output goes to a log
stage() {
  local name="$1" file="$2"
  shift 2
  if made "$file"; then echo "== $name: kept ($file)"; return; fi
  if [[ "$dry_run" != false ]]; then echo "== $name: makes $file"; would "$@"; return; fi
  local start=$SECONDS
  echo "== $name (log: $RUN_DIR/$name.log)"
  # In the background: bash answers to signals while it waits, but not while a command runs in its foreground.
  setsid "$@" >"$RUN_DIR/$name.log" 2>&1 &
  job=$!
  wait "$job" || { tail -n 20 "$RUN_DIR/$name.log" >&2; stop "$name failed; its log is $RUN_DIR/$name.log"; }
  job=""
  echo "   $((SECONDS - start)) s"
}

# serve NAME MODEL: serves a model on a free port until stop_server
serve() {
  port="$(free_port)"
  if [[ "$dry_run" != false ]]; then would bash examples/serve_trm.sh "$2"; return; fi
  PORT="$port" TRM_MODEL=trm PREFLIGHT=off MAX_LEN=4096 setsid bash examples/serve_trm.sh "$2" \
    --max-num-seqs 64 --enforce-eager >"$RUN_DIR/serve-$1.log" 2>&1 &
  server=$!
  wait_for_server "http://127.0.0.1:$port/health" "$server" "$RUN_DIR/serve-$1.log" 180
}
stop_server() { [[ -z "$server" ]] || stop_group "$server"; server=""; }

# start_judge: serves the judge by rule on a free port until the end; it tells the score of any text about easy-VQA
start_judge() {
  [[ -z "$judge" ]] || return 0
  judge_port="$(free_port)"
  if [[ "$dry_run" != false ]]; then would python examples/quickstart/judge_server.py; return; fi
  setsid python examples/quickstart/judge_server.py --port "$judge_port" >"$RUN_DIR/judge.log" 2>&1 &
  judge=$!
  wait_for_server "http://127.0.0.1:$judge_port/health" "$judge" "$RUN_DIR/judge.log" 60
}

asked=(--prompt-path "$PROMPT" --max-thinking-chars 1000 --max-tokens 48)

if [[ ! -f "$DATA_DIR/train.parquet" || ! -f "$DATA_DIR/val.parquet" ]]; then
  data=(python -m data_preprocess.easy_vqa --out "$DATA_DIR")
  if [[ "$dry_run" == false ]]; then "${data[@]}"; else would "${data[@]}"; fi
fi

# Hot and few responses to many questions: what a judge sees must differ.
stage grpo "$RUN_DIR/grpo/finished" \
  python -m recipe.sophiavl.main_sophiavl platform=cpu preset=quickstart thinking_reward=outcome_only \
  data.train_files="$DATA_DIR/train.parquet" data.val_files="$DATA_DIR/val.parquet" \
  actor_rollout_ref.model.path="$POLICY" actor_rollout_ref.actor.use_kl_loss=false \
  data.train_batch_size=192 actor_rollout_ref.actor.ppo_mini_batch_size=192 \
  actor_rollout_ref.rollout.n=3 actor_rollout_ref.rollout.temperature=1.4 \
  trainer.total_training_steps="$COLLECT_STEPS" \
  trainer.val_before_train=false trainer.test_freq=-1 trainer.save_freq=-1 \
  run_dir="$RUN_DIR/grpo"
stage collect "$RUN_DIR/pairs.parquet" \
  python -m recipe.sophiavl.trm_training.collect "$RUN_DIR/grpo" --data "$DATA_DIR/train.parquet" \
  --out "$RUN_DIR/pairs.parquet"

if ! made "$RUN_DIR/annotated.parquet"; then
  start_judge
  stage annotate "$RUN_DIR/annotated.parquet" \
    python -m recipe.sophiavl.trm_training.annotate "$RUN_DIR/pairs.parquet" --out "$RUN_DIR/annotated.parquet" \
    --url "http://127.0.0.1:$judge_port/v1" --model rule-judge --structured-output off "${asked[@]}"
fi

# easy-VQA's rule gives few different scores: intervals that no reasoning falls into stay empty.
stage balance "$RUN_DIR/trm/summary.json" \
  python -m recipe.sophiavl.trm_training.balance "$RUN_DIR/annotated.parquet" --out "$RUN_DIR/trm" \
  --floor 50 --cap 500 --test-fraction 0.25

TRAIN_FILES="$RUN_DIR/trm/train.parquet" MODEL="$TRM_BASE" PROMPT="$PROMPT" GPUS=1 NAME=trm_tiny OUT="$RUN_DIR/sft" \
  stage train "$RUN_DIR/sft/checkpoints/latest_checkpointed_iteration.txt" \
  bash examples/train_trm.sh trm_platform=cpu trm_preset=quickstart trainer.total_epochs="$EPOCHS"

for name in untrained trained; do
  if made "$RUN_DIR/$name/evaluation.json"; then echo "== evaluate-$name: kept"; continue; fi
  if [[ "$name" == untrained ]]; then
    # Without training the model writes no score by itself: the server holds it to one.
    serve "$name" "$TRM_BASE"
    how=(--structured-output on --no-edits)
  else
    serve "$name" "$RUN_DIR/sft/checkpoints"
    # The judge is asked about edited texts too: how much of a drop is the edit's form is told by its own.
    start_judge
    how=(--structured-output off --compare "$RUN_DIR/untrained/evaluation.json"
      --reference-url "http://127.0.0.1:$judge_port/v1" --reference-model rule-judge --reference-structured-output off)
  fi
  stage "evaluate-$name" "$RUN_DIR/$name/evaluation.json" \
    python -m recipe.sophiavl.trm_training.evaluate "$RUN_DIR/trm/test.parquet" --out "$RUN_DIR/$name" \
    --url "http://127.0.0.1:$port/v1" --model trm --blind-baseline "$RUN_DIR/trm/train.parquet" \
    "${asked[@]}" "${how[@]}"
  stop_server
done
[[ "$dry_run" == false ]] || exit 0
# Compared: the untrained model. All figures are in the page.
cat "$RUN_DIR/trained/summary.md"
echo "pictures: $RUN_DIR/trm/distribution.png, $RUN_DIR/trained/evaluation.html"
