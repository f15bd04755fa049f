# Shared by the launch scripts: `source` it after `cd` to the repository.

stop() { echo "$(basename "$0"): $*" >&2; exit 1; }

# read_flags ARGUMENT...: reads --help and --dry-run[=full], wherever they stand, for a script that has usage();
# sets dry_run to false, true or full, and arguments to all the others
read_flags() {
  dry_run=false arguments=()
  local argument
  for argument in "$@"; do
    case "$argument" in
      --help | -h) usage; exit 0 ;;
      --dry-run) dry_run=true ;;
      --dry-run=true | --dry-run=full) dry_run="${argument#*=}" ;;
      --dry-run=*) stop "$argument: give --dry-run or --dry-run=full" ;;
      *) arguments+=("$argument") ;;
    esac
  done
}

# would COMMAND...: prints what a dry run leaves out, as a line for the shell
would() { echo "would run:$(printf ' %q' "$@")"; }

# activate: the environment that VENV names, or else .venv where there is one and no other is active
# (what is on PATH before an environment that is active already stays before it)
activate() {
  local folder="${VENV:-}"
  [[ -n "$folder" || -n "${VIRTUAL_ENV:-}" || ! -d .venv ]] || folder=.venv
  [[ -n "$folder" && ! "$folder" -ef "${VIRTUAL_ENV:-}" ]] || return 0
  [[ -f "$folder/bin/activate" ]] || stop "VENV=$folder is no virtual environment"
  # shellcheck disable=SC1091
  source "$folder/bin/activate"
}

# use_environment README_SECTION: activates an environment, and stops without verl
use_environment() {
  activate
  python -c "import importlib.util as u; raise SystemExit(u.find_spec('verl') is None)" 2>/dev/null ||
    stop "verl is not installed here: see $1"
}

# need_files NAME VALUE HINT: stops unless VALUE is a file, a pattern that matches some, or a Hydra list
need_files() {
  [[ "$2" == \[* ]] || compgen -G "$2" >/dev/null || stop "$1=$2 does not exist; $3"
}

# free_port: prints a TCP port that nobody listens on
free_port() { python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

# wait_for_server URL PID LOG SECONDS: returns once the server answers; stops if it dies or takes too long
# LOG: where its output went; empty if the user sees it
wait_for_server() {
  local url="$1" pid="$2" log="$3" seconds="$4" start=$SECONDS
  local see="${log:+; its log is $log}"
  until python - "$url" <<'EOF' 2>/dev/null
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=2)
EOF
  do
    kill -0 "$pid" 2>/dev/null || { [[ -z "$log" ]] || tail -n 20 "$log" >&2; stop "the server ended while starting$see"; }
    (( SECONDS - start < seconds )) || stop "the server does not answer at $url after $seconds s$see"
    sleep 1
  done
}

# stop_group PID: ends a background job started with setsid, and all its children
stop_group() {
  kill -TERM -- "-$1" 2>/dev/null || return 0
  for _ in $(seq 20); do kill -0 -- "-$1" 2>/dev/null || return 0; sleep 0.5; done
  kill -KILL -- "-$1" 2>/dev/null || true
}

# rl_settings: what --help says of the variables that train_rl reads
rl_settings() {
  cat <<EOF
--dry-run composes and validates the configuration, prints a plan of the run, and exits; it needs no GPU, data or
server. --dry-run=full prints the whole configuration instead.

Environment:
  TRAIN_FILES  RL parquet for training: a file, a pattern, or [a list] (default: data/sophiavl_130k/train-*.parquet)
  VAL_FILES    RL parquet for validation, likewise    (default: data/sophiavl_130k/val-*.parquet)
  MODEL        policy to start from                   (default: the preset's)
  MODE         sync, or asynchronous, with the next rollout under way during the update: colocate_async (on the same
               GPUs), separate_async (on GPUs of its own: half of 8, unless overridden) (default: sync)
  SERVING      where the thinking reward model runs   (default: external)
                 external   behind an OpenAI-compatible server, on GPUs that the training does not use
                 pool       hosted by verl on 2 GPUs of its own (reward.reward_model.n_gpus_per_node)
                 colocated  hosted by verl on the GPUs that train, between rollout and update
  TRM_URL      external: its base URL, with NODES > 1 of its machine's address (default: http://127.0.0.1:8000/v1)
  TRM_MODEL    external: name under which it is served (default: sophiavl-trm)
  TRM_PATH     pool, colocated: the model, a folder or a name on the hub
  GPUS         GPUs per node that train               (default: the preset's)
  NODES        nodes that train, of the Ray cluster that RAY_ADDRESS names (default: 1)
  NAME         experiment name                        (default: the preset's)
  OUT          folder of the run (run_dir)            (default: outputs/NAME)
  VENV         folder of the virtual environment      (default: the active one, or .venv in the repository)
EOF
}

# train_rl [PRESET...]: starts the RL training of these presets (recipe/sophiavl/config/preset), of the variables above
# and of $arguments; does not return
train_rl() {
  local train="${TRAIN_FILES:-data/sophiavl_130k/train-*.parquet}" val="${VAL_FILES:-data/sophiavl_130k/val-*.parquet}"
  local presets=("$@") settings=()
  use_environment "'On GPUs' in README.md"
  case "${MODE:=sync}" in
    sync) ;;
    colocate_async) settings+=(trainer.v1.trainer_mode=colocate_async) ;;
    separate_async) presets+=(separate_async) ;;
    *) stop "MODE=$MODE: give sync, colocate_async or separate_async" ;;
  esac
  case "${SERVING:=external}" in
    external)
      settings+=("thinking_reward.urls=[${TRM_URL:-http://127.0.0.1:8000/v1}]")
      settings+=(thinking_reward.model="${TRM_MODEL:-sophiavl-trm}")
      ;;
    pool | colocated)
      [[ -n "${TRM_PATH:-}" ]] || stop "SERVING=$SERVING: set TRM_PATH to the thinking reward model that verl should host"
      settings+=(serving="$SERVING" reward.reward_model.model_path="$TRM_PATH")
      ;;
    *) stop "SERVING=$SERVING: give external, pool or colocated" ;;
  esac
  if [[ "$dry_run" == false ]]; then
    need_files TRAIN_FILES "$train" "python -m data_preprocess.sophiavl_130k --help"
    need_files VAL_FILES "$val" "python -m data_preprocess.sophiavl_130k --help (--val-fraction)"
  fi
  local IFS=,
  exec python -m recipe.sophiavl.main_sophiavl ${presets[*]:+"preset=[${presets[*]}]"} \
    data.train_files="$train" data.val_files="$val" "${settings[@]}" \
    ${MODEL:+actor_rollout_ref.model.path="$MODEL"} ${GPUS:+trainer.n_gpus_per_node="$GPUS"} \
    ${NODES:+trainer.nnodes="$NODES"} ${NAME:+trainer.experiment_name="$NAME"} ${OUT:+run_dir="$OUT"} \
    sophiavl.dry_run="$dry_run" "${arguments[@]}"
}
