#!/usr/bin/env bash
# Serves a thinking reward model with vLLM and checks it with the preflight.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<HELP
Usage: bash examples/serve_trm.sh MODEL_FOLDER [--dry-run] [vllm serve flags]

MODEL_FOLDER is what examples/train_trm.sh saved (OUT/checkpoints/global_step_N/huggingface, or OUT/checkpoints for its
newest checkpoint), or any vision-language model that vLLM serves. Serves until it is stopped. --dry-run prints the
commands instead.

Environment:
  TRM_MODEL  name under which it is served    (default: sophiavl-trm)
  HOST       address to listen on             (default: 127.0.0.1; 0.0.0.0 for other machines)
  PORT       port                             (default: 8000)
  PROMPT     YAML template that it was trained on, for the check (default: the package's own)
  MAX_LEN    longest conversation in tokens   (default: 16384)
  PREFLIGHT  flags of the check, or "off"     (default: none)
  WAIT       seconds to wait for the server   (default: 1800)
  VENV       folder of the virtual environment (default: the active one, or .venv in the repository)
  API_SERVERS  processes that read requests and their images (default: one for 8 cores, 8 at most)

It takes GPUs that the training does not use (CUDA_VISIBLE_DEVICES), or a machine of its own. Without a GPU, number
format and threads are those that suit the processor (SOPHIAVL_CPU_DTYPE, OMP_NUM_THREADS).
Prefix caching (on by default in vLLM) is what makes groups cheap: leave it on.
HELP
}
read_flags "$@"
model="${arguments[0]:-}"
TRM_MODEL="${TRM_MODEL:-sophiavl-trm}" # name under which it is served
HOST="${HOST:-127.0.0.1}"              # address to listen on
PORT="${PORT:-8000}"                   # port
PROMPT="${PROMPT:-}"                   # template that it was trained on
MAX_LEN="${MAX_LEN:-16384}"            # longest conversation in tokens
PREFLIGHT="${PREFLIGHT:-}"             # flags of the check, or "off"
WAIT="${WAIT:-1800}"                   # seconds to wait for the server
cores="$(nproc)"
API_SERVERS="${API_SERVERS:-$((cores < 16 ? 1 : cores > 64 ? 8 : cores / 8))}" # processes that read requests

activate
[[ -n "$model" ]] || { usage >&2; stop "which model? give its folder or its hub name"; }
if [[ -f "$model/latest_checkpointed_iteration.txt" ]]; then
  model="$model/global_step_$(<"$model/latest_checkpointed_iteration.txt")/huggingface"
fi
[[ -d "$model" || ! "$model" =~ ^[./~]|/.*/ ]] || stop "$model: no such folder (a name on the hub is OWNER/NAME)"
[[ ! -d "$model" || -f "$model/config.json" ]] || stop "$model holds no config.json: give the folder named huggingface"
command -v vllm >/dev/null || stop "vllm is not installed here: see README.md"
eval "$(python -m recipe.sophiavl.verl_support.environment)"

check_host="$HOST"
[[ "$HOST" != 0.0.0.0 ]] || check_host=127.0.0.1
serve=(
  vllm serve "$model" --served-model-name "$TRM_MODEL" --host "$HOST" --port "$PORT" --max-model-len "$MAX_LEN"
  --api-server-count "$API_SERVERS" --dtype "${SOPHIAVL_CPU_DTYPE:-auto}" "${arguments[@]:1}"
)
# shellcheck disable=SC2206  (several flags)
check=(
  python -m recipe.sophiavl.trm.preflight --url "http://$check_host:$PORT/v1" --model "$TRM_MODEL"
  ${PROMPT:+--prompt-path "$PROMPT"} $PREFLIGHT
)
if [[ "$dry_run" != false ]]; then
  would "${serve[@]}"
  [[ "$PREFLIGHT" == off ]] || would "${check[@]}"
  exit 0
fi

server=""
trap '[[ -z "$server" ]] || stop_group "$server"' EXIT
trap 'exit 130' INT TERM
setsid "${serve[@]}" 2>&1 &
server=$!
wait_for_server "http://$check_host:$PORT/health" "$server" "" "$WAIT"
if [[ "$PREFLIGHT" != off ]]; then
  "${check[@]}" ||
    echo "The server runs, but a run that asks it would stop at this check." >&2
fi
# what other machines call this one, where it listens to them
[[ "$HOST" != 0.0.0.0 ]] || check_host="$(hostname)"
echo "serving: thinking_reward.urls=[http://$check_host:$PORT/v1] thinking_reward.model=$TRM_MODEL"
wait "$server"
