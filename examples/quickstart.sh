#!/usr/bin/env bash
# From a fresh clone to a trained model on a machine without a GPU: environment, data, thinking reward model, Trust-GRPO.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<EOF
Usage: bash examples/quickstart.sh [--fresh] [--dry-run[=full]] [Hydra overrides]

Trains a tiny Qwen2.5-VL policy with Trust-GRPO on easy-VQA images, with a thinking reward model served by vLLM.
Run again to continue an unfinished run or to see a finished one; --fresh starts over. Other settings need another
RUN_DIR: a run is never continued as another experiment, and never written over. --dry-run checks the settings, prints a
plan of the run (=full: the whole configuration) and exits.

Environment:
  RUN_DIR  folder of the run                                  (default: outputs/quickstart)
  STEPS    training steps                                     (default: 20)
  SEED     seed of the data order and of the sampling         (default: 1)
  DATA_DIR parquet files, shared by runs                      (default: outputs/easy_vqa_rows)
  MODELS   folder of the tiny policy and TRM                  (default: examples/quickstart/models)
  VENV     folder of the virtual environment                  (default: .venv in the repository)

Examples:
  bash examples/quickstart.sh
  RUN_DIR=outputs/plain_grpo bash examples/quickstart.sh thinking_reward=outcome_only
EOF
}
read_flags "$@"
fresh=false
if [[ "${arguments[0]:-}" == --fresh ]]; then fresh=true arguments=("${arguments[@]:1}"); fi
export VENV="${VENV:-$PWD/.venv}"       # folder of the virtual environment
RUN_DIR="${RUN_DIR:-outputs/quickstart}" # folder of the run
STEPS="${STEPS:-20}"                     # training steps
SEED="${SEED:-1}"                        # seed of the data order and of the sampling
DATA_DIR="${DATA_DIR:-outputs/easy_vqa_rows}" # parquet files, shared by runs
MODELS="${MODELS:-examples/quickstart/models}" # the tiny policy and thinking reward model

[[ "$dry_run" != false ]] || bash examples/setup_cpu.sh
[[ -f "$VENV/bin/activate" ]] || stop "$VENV is no virtual environment; bash examples/setup_cpu.sh makes it"
source "$VENV/bin/activate"
export HF_HUB_OFFLINE=1
eval "$(python -m recipe.sophiavl.verl_support.environment)"

[[ " ${arguments[*]}" != *" run_dir="* ]] || stop "set RUN_DIR=... instead of run_dir=..."
RUN_DIR="$(realpath -m "$RUN_DIR")"

[[ "$dry_run" != false || -f "$DATA_DIR/train.parquet" && -f "$DATA_DIR/val.parquet" ]] ||
  python -m data_preprocess.easy_vqa --out "$DATA_DIR"
[[ -f "$MODELS/policy/model.safetensors" && -f "$MODELS/trm/model.safetensors" ]] ||
  stop "no models in $MODELS; make them with: python examples/quickstart/make_models.py"

port="$(free_port)"
train=(
  python -m recipe.sophiavl.main_sophiavl platform=cpu preset=quickstart
  data.train_files="$DATA_DIR/train.parquet" data.val_files="$DATA_DIR/val.parquet"
  data.seed="$SEED" actor_rollout_ref.rollout.seed="$SEED"
  actor_rollout_ref.model.path="$MODELS/policy" thinking_reward.urls="[http://127.0.0.1:$port/v1]"
  trainer.total_training_steps="$STEPS" trainer.test_freq="$STEPS" sophiavl.report=false
  +ray_kwargs.ray_init.address=local # a cluster that something else started on this machine is not joined
  "${arguments[@]}"
)
[[ "$dry_run" == false ]] || exec "${train[@]}" run_dir="$RUN_DIR" sophiavl.dry_run="$dry_run"
# A setting that would stop the training is told here, before anything is started or removed.
folder="$RUN_DIR"
[[ "$fresh" == false ]] || folder="$(mktemp -u)"
state=0
"${train[@]}" run_dir="$folder" check_only=true >/dev/null || state=$?
case $state in
  0) ;;
  3) exec python -m recipe.sophiavl.report "$RUN_DIR" ;;
  *) exit 1 ;;
esac
[[ "$fresh" == false ]] || rm -rf "$RUN_DIR"
mkdir -p "$RUN_DIR"

trm_pid="" train_pid="" follow_pid=""
cleanup() {
  trap - EXIT INT TERM
  [[ -z "$follow_pid" ]] || kill "$follow_pid" 2>/dev/null || true
  [[ -z "$train_pid" ]] || stop_group "$train_pid"
  [[ -z "$trm_pid" ]] || stop_group "$trm_pid"
}
trap cleanup EXIT
trap 'echo; echo "Stopping. Run the same command again to go on from the last checkpoint."; exit 130' INT TERM

# It works beside the rollout server, whose number format and threads it has.
OMP_NUM_THREADS="$SOPHIAVL_SERVER_THREADS" setsid vllm serve "$MODELS/trm" --served-model-name trm \
  --host 127.0.0.1 --port "$port" --dtype "$SOPHIAVL_CPU_DTYPE" \
  --max-model-len 4096 --max-num-seqs 64 --enforce-eager >"$RUN_DIR/trm.log" 2>&1 &
trm_pid=$!
echo "Starting the thinking reward model on port $port (log: $RUN_DIR/trm.log)"
wait_for_server "http://127.0.0.1:$port/health" "$trm_pid" "$RUN_DIR/trm.log" 180

setsid "${train[@]}" run_dir="$RUN_DIR" >>"$RUN_DIR/train.log" 2>&1 &
train_pid=$!
echo "Training for $STEPS steps (log: $RUN_DIR/train.log)"
# In the background: bash answers to signals while it waits, but not while a command runs in its foreground.
python -m recipe.sophiavl.report "$RUN_DIR" --follow "$train_pid" --total-steps "$STEPS" &
follow_pid=$!
wait "$follow_pid" || true
follow_pid=""
if ! wait "$train_pid"; then
  train_pid=""
  grep -E "^error: |Error: " "$RUN_DIR/train.log" | tail -n 5 >&2 || true
  stop "training failed; its log is $RUN_DIR/train.log"
fi
train_pid=""
python -m recipe.sophiavl.report "$RUN_DIR"
