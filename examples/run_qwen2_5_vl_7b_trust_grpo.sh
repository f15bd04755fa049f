#!/usr/bin/env bash
# The paper's run (arXiv 2505.17018): Qwen2.5-VL-7B-Instruct, Trust-GRPO with a thinking reward, 8 x 80 GB GPUs.
set -euo pipefail

usage() {
  cat <<EOF
Usage: bash examples/run_qwen2_5_vl_7b_trust_grpo.sh [--dry-run] [Hydra overrides]

--dry-run composes and validates the configuration, prints it, and exits; it needs no GPU, data or server.

Environment:
  TRAIN_FILES  RL parquet for training: a file, a pattern, or [a list] (default: data/sophiavl_130k/train-*.parquet)
  VAL_FILES    RL parquet for validation, likewise    (default: data/sophiavl_130k/val-*.parquet)
  MODEL        policy to start from                   (default: Qwen/Qwen2.5-VL-7B-Instruct)
  TRM_URL      OpenAI-compatible base URL of the thinking reward model (default: http://127.0.0.1:8000/v1);
               it needs GPUs that the training does not use, and with NODES > 1 the address of its machine
  TRM_MODEL    name under which it is served          (default: sophiavl-trm)
  GPUS         GPUs per node                          (default: 8)
  NODES        nodes of the Ray cluster that RAY_ADDRESS names (default: 1)
  NAME         experiment name                        (default: qwen2_5_vl_7b_trust_grpo)
  OUT          folder of the run (run_dir)            (default: outputs/NAME)

verl itself hosts the thinking reward model with
  serving=pool reward.reward_model.model_path=TRM        on GPUs of its own
  serving=colocated reward.reward_model.model_path=TRM   on the GPUs that train, between rollout and update

The ablations of the paper are one override each:
  thinking_reward=outcome_only             plain GRPO
  thinking_reward=no_trust                 without the trust weight
  thinking_reward=no_trust_no_annealing    without trust weight and annealing
  thinking_reward=published_code           as the published code does it
EOF
}
dry_run=false
case "${1:-}" in
  --help | -h) usage; exit 0 ;;
  --dry-run) dry_run=true; shift ;;
esac

cd "$(dirname "${BASH_SOURCE[0]}")/.."
TRAIN_FILES="${TRAIN_FILES:-data/sophiavl_130k/train-*.parquet}" # RL parquet for training
VAL_FILES="${VAL_FILES:-data/sophiavl_130k/val-*.parquet}"       # RL parquet for validation
MODEL="${MODEL:-Qwen/Qwen2.5-VL-7B-Instruct}"                    # policy to start from
TRM_URL="${TRM_URL:-http://127.0.0.1:8000/v1}"                   # thinking reward model
TRM_MODEL="${TRM_MODEL:-sophiavl-trm}"                           # name under which it is served
GPUS="${GPUS:-8}"                                                # GPUs per node
NODES="${NODES:-1}"                                              # nodes of the Ray cluster
NAME="${NAME:-qwen2_5_vl_7b_trust_grpo}"                         # experiment name
OUT="${OUT:-outputs/$NAME}"                                      # folder of the run

[[ -d .venv && -z "${VIRTUAL_ENV:-}" ]] && source .venv/bin/activate
source examples/common.sh
python -c "import verl" 2>/dev/null || stop "verl is not installed here: see 'On GPUs' in README.md"
if [[ "$dry_run" == false ]]; then
  need_files TRAIN_FILES "$TRAIN_FILES" "python -m data_preprocess.sophiavl_130k --help"
  need_files VAL_FILES "$VAL_FILES" "python -m data_preprocess.sophiavl_130k --help (--val-fraction)"
fi

exec python -m recipe.sophiavl.main_sophiavl \
  data.train_files="$TRAIN_FILES" data.val_files="$VAL_FILES" \
  actor_rollout_ref.model.path="$MODEL" \
  thinking_reward.urls="[$TRM_URL]" thinking_reward.model="$TRM_MODEL" \
  trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NODES" trainer.experiment_name="$NAME" \
  run_dir="$OUT" sophiavl.dry_run="$dry_run" "$@"
