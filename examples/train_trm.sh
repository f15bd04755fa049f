#!/usr/bin/env bash
# Trains a thinking reward model on verl's SFT trainer. The paper (arXiv 2505.17018): Qwen2.5-VL-3B, 2 epochs, 4 GPUs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<HELP
Usage: bash examples/train_trm.sh [--dry-run[=full]] [Hydra overrides]

--dry-run composes and validates the configuration, prints a plan of the training, and exits; it needs no GPU and no
data. --dry-run=full prints the whole configuration instead.

Environment:
  TRAIN_FILES  scored reasoning: a parquet file, a pattern, or [a list] (default: trm/data/train.parquet)
  VAL_FILES    the same for the validation loss       (default: null, none)
  MODEL        model to start from                    (default: Qwen/Qwen2.5-VL-3B-Instruct)
  PROMPT       YAML template of the prompt            (default: null, the package's own)
  GPUS         GPUs per node (1 on a CPU)             (default: 4)
  NODES        nodes; start this script on each one with torchrun's variables in TORCHRUN_ARGS (default: 1)
  NAME         experiment name                        (default: trm_qwen2_5_vl_3b)
  OUT          folder for checkpoints and metrics     (default: outputs/NAME)
  VENV         folder of the virtual environment      (default: the active one, or .venv in the repository)

The files are made by recipe.sophiavl.trm_training.balance from your own rollouts, or by
data_preprocess.sophiavl_thinking_156k from the published set. The model to serve is
OUT/checkpoints/global_step_N/huggingface (examples/serve_trm.sh). Run again to continue from the last checkpoint.

On a machine without a GPU, with a tiny model: GPUS=1 ... bash examples/train_trm.sh trm_platform=cpu
HELP
}
read_flags "$@"
TRAIN_FILES="${TRAIN_FILES:-trm/data/train.parquet}" # scored reasoning
VAL_FILES="${VAL_FILES:-null}"                       # the same for the validation loss
MODEL="${MODEL:-Qwen/Qwen2.5-VL-3B-Instruct}"        # model to start from
PROMPT="${PROMPT:-null}"                             # YAML template of the prompt
GPUS="${GPUS:-4}"                                    # GPUs per node
NODES="${NODES:-1}"                                  # nodes
TORCHRUN_ARGS="${TORCHRUN_ARGS:---standalone}"       # how torchrun finds the other nodes
NAME="${NAME:-trm_qwen2_5_vl_3b}"                    # experiment name
OUT="${OUT:-outputs/$NAME}"                          # checkpoints and metrics

use_environment README.md
eval "$(python -m recipe.sophiavl.verl_support.environment)"

overrides=(
  data.train_files="$TRAIN_FILES" data.val_files="$VAL_FILES" data.prompt_path="$PROMPT" model.path="$MODEL"
  trainer.n_gpus_per_node="$GPUS" trainer.nnodes="$NODES" trainer.experiment_name="$NAME"
  trainer.default_local_dir="$OUT/checkpoints" trm.dry_run="$dry_run"
)
[[ "$VAL_FILES" == null ]] || overrides+=(trainer.test_freq=after_each_epoch)
overrides+=("${arguments[@]}")
[[ "$dry_run" == false ]] || exec python -m recipe.sophiavl.trm_training.train "${overrides[@]}"
need_files TRAIN_FILES "$TRAIN_FILES" "python -m recipe.sophiavl.trm_training.balance --help"
[[ "$VAL_FILES" == null ]] || need_files VAL_FILES "$VAL_FILES" "leave it out for no validation loss"
export VERL_FILE_LOGGER_PATH="${VERL_FILE_LOGGER_PATH:-$OUT/metrics-$(date +%Y%m%d-%H%M%S).jsonl}"
# shellcheck disable=SC2086  (several arguments)
exec torchrun $TORCHRUN_ARGS --nnodes "$NODES" --nproc_per_node "$GPUS" -m recipe.sophiavl.trm_training.train "${overrides[@]}"
