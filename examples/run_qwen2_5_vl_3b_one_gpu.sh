#!/usr/bin/env bash
# Qwen2.5-VL-3B-Instruct with Trust-GRPO on one GPU: adapters (LoRA), or all weights.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<EOF
Usage: bash examples/run_qwen2_5_vl_3b_one_gpu.sh [--dry-run[=full]] [Hydra overrides]

TUNE=lora trains adapters of the language model, on a GPU of 48 GB or more. TUNE=full trains all weights, on one of
80 GB; weights, gradients and Adam (60 GB) lie in main memory. The thinking reward model takes another GPU, or the same
one with SERVING=colocated.

  TUNE         lora or full                           (default: lora)

$(rl_settings)
EOF
}
read_flags "$@"
TUNE="${TUNE:-lora}" # lora or full
[[ "${MODE:-sync}" != separate_async ]] || stop "MODE=separate_async: it takes two GPUs; use sync or colocate_async"
[[ "${SERVING:-external}" != pool ]] || stop "SERVING=pool: it takes a second GPU; use colocated or external"
case "$TUNE" in
  lora) train_rl qwen2_5_vl_3b lora ;;
  full) train_rl qwen2_5_vl_3b offload ;;
  *) stop "TUNE=$TUNE: give lora or full" ;;
esac
