#!/usr/bin/env bash
# Makes a model folder out of a run's checkpoint, for transformers, vLLM, and the recipe's infer and evaluate.
set -euo pipefail

usage() {
  cat <<'HELP'
Usage: bash examples/merge_checkpoint.sh CHECKPOINT OUT [--dry-run]

CHECKPOINT is a run's folder (its newest checkpoint is taken), its checkpoints/global_step_N, or the folder actor in it.
OUT is the folder to make; it appears whole or not at all, and nothing is overwritten.
--dry-run checks the checkpoint, says what would be merged, and writes nothing.

verl's merger puts the shards of all ranks together, in bfloat16; tokenizer, processor and generation settings come along.
Adapters (LoRA) are added to the weights, so that nobody needs peft; they are also kept apart, in OUT/lora_adapter.
It needs no GPU, and main memory for about three times the model in bfloat16.

Environment:
  VENV  folder of the virtual environment (default: the active one, or .venv in the repository)
HELP
}
[[ "${1:-}" == "--help" || "${1:-}" == "-h" ]] && { usage; exit 0; }

cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh
activate
(($# >= 2)) || { usage >&2; stop "which checkpoint, and where to? give CHECKPOINT and OUT"; }
exec python -m recipe.sophiavl.merge "$@"
