# Shared by the benchmark scripts: `source` it after `cd` to the repository.
# shellcheck shell=bash

BENCHMARK_NAMES=(MMMU MME MMStar ChartQA MMBench MathVista MathVerse)
dry_run=false
flags=() # what goes to the harness as it is

settings_help() { # prints the settings with their meaning and default
  cat <<'EOF'

Environment (examples/benchmarks/settings.sh; all harnesses have the same):
EOF
  sed -n 's/^\(export \)\?[A-Z_]*="${\([A-Z_]*\):-\([^}]*\)}" *# \(.*\)$/  \2  \4 (default: \3)/p' \
    examples/benchmarks/settings.sh | sed 's/(default: )/(default: none)/'
}

read_arguments() { # "$@" of the script: sets dry_run and flags; --help prints usage
  while (($#)); do
    case "$1" in
      --help | -h) usage; settings_help; exit 0 ;;
      --dry-run) dry_run=true ;;
      *) flags+=("$1") ;;
    esac
    shift
  done
}

check_settings() { # stops at a setting that a harness would misread
  local name
  for name in CONCURRENCY TIMEOUT MAX_TOKENS MIN_PIXELS MAX_PIXELS MAX_LEN; do
    [[ "${!name}" =~ ^[1-9][0-9]*$ ]] || stop "$name=${!name}: must be a whole number above 0"
  done
  [[ "$TEMPERATURE" =~ ^[0-9]+(\.[0-9]+)?$ ]] || stop "TEMPERATURE=$TEMPERATURE: must be a number of 0 or more"
  ((MIN_PIXELS <= MAX_PIXELS)) || stop "MIN_PIXELS=$MIN_PIXELS is more than MAX_PIXELS=$MAX_PIXELS"
  [[ "$BASE_URL" =~ ^https?://[^[:space:],]+$ ]] || stop "BASE_URL=$BASE_URL: must be like http://127.0.0.1:8000/v1"
  [[ -n "$MODEL" && "$MODEL" != *[[:space:],=]* ]] || stop "MODEL=$MODEL: must be a name without blank, comma or ="
  local prompts=examples/benchmarks/prompts
  prompt_file="$PWD/$prompts/$PROMPT.txt"
  [[ "$PROMPT" != */* && -f "$prompt_file" ]] || prompt_file="$(realpath -m "$PROMPT")"
  [[ -f "$prompt_file" ]] || stop "PROMPT=$PROMPT: must be one of $(cd $prompts && echo *.txt | sed 's/\.txt//g'), or a file"
  [[ "$prompt_file" != *[,=]* ]] || stop "PROMPT=$PROMPT: its path has a comma or =, which lmms-eval cannot read"
  [[ -n "$BENCHMARKS$LOCAL_DATA" ]] || stop "BENCHMARKS is empty: name some of ${BENCHMARK_NAMES[*]}"
  for name in $BENCHMARKS; do
    [[ " ${BENCHMARK_NAMES[*]} " == *" $name "* ]] || stop "BENCHMARKS=$name: must be of ${BENCHMARK_NAMES[*]}"
  done
  [[ -z "$LOCAL_DATA" || -f "$LOCAL_DATA/questions.jsonl" ]] ||
    stop "LOCAL_DATA=$LOCAL_DATA holds no questions.jsonl: make it with python -m examples.benchmarks.local_data"
  OUT="$(realpath -m "$OUT")"
  [[ -z "$LOCAL_DATA" ]] || LOCAL_DATA="$(realpath "$LOCAL_DATA")"
}

json() { # json NAME VALUE...: a JSON object; a VALUE that is JSON but no plain word stays what it is, @FILE is its text
  python3 - "$@" <<'EOF'
import json, pathlib, sys
def value(text):
    if text.startswith("@"):
        return pathlib.Path(text[1:]).read_text(encoding="utf-8").strip()
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
print(json.dumps(dict(zip(sys.argv[1::2], map(value, sys.argv[2::2]), strict=True)), ensure_ascii=False))
EOF
}

show() { # show WORD...: the words as a shell reads them
  local word line=""
  for word in "$@"; do
    if [[ "$word" =~ ^[A-Za-z0-9_./:=@%+,-]+$ ]]; then line+=" $word"; else line+=" ${word@Q}"; fi
  done
  echo "${line# }"
}

show_server() { # how the model has to be served: the pixel limits hold there for every harness
  echo "# serve the checkpoint like this: pixel limits are the server's, no harness sets them for images"
  # --generation-config vllm: else the checkpoint's own file adds what no harness asked for (Qwen's: a repetition penalty)
  show vllm serve CHECKPOINT --served-model-name "$MODEL" --max-model-len "$MAX_LEN" --generation-config vllm \
    --mm-processor-kwargs "$(json min_pixels "$MIN_PIXELS" max_pixels "$MAX_PIXELS")"
}

run() { # run COMMAND...: prints the command, and runs it unless --dry-run was given
  echo "# command"
  show "$@"
  [[ "$dry_run" == true ]] || "$@"
}

need_server() { # stops unless the server answers and serves MODEL
  [[ "$dry_run" == true ]] || python3 - "$BASE_URL" "$MODEL" <<'EOF' || exit 1
import json, os, sys, urllib.request
url, model = sys.argv[1].rstrip("/") + "/models", sys.argv[2]
request = urllib.request.Request(url, headers={"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
try:
    with urllib.request.urlopen(request, timeout=30) as reply:
        served = [entry["id"] for entry in json.load(reply)["data"]]
except (OSError, ValueError, KeyError, TypeError) as error:
    sys.exit(f"BASE_URL={sys.argv[1]}: no OpenAI-compatible server answers at {url}: {error}")
if model not in served:
    sys.exit(f"MODEL={model}: the server serves {', '.join(map(str, served)) or 'nothing'}")
EOF
}

make_environment() { # make_environment FOLDER REQUIREMENTS: a virtual environment of its own, made once
  local folder="$1" requirements="$2" stamp uv
  stamp="$folder/.installed-$(sha256sum <"$requirements" | cut -c1-16)"
  echo "# environment: $folder, from $requirements"
  [[ "$dry_run" == false && ! -f "$stamp" ]] || return 0
  uv="$(command -v uv || echo .venv/bin/uv)"
  [[ -x "$uv" ]] || stop "uv is not installed: pip install uv"
  command -v "$PYTHON" >/dev/null || stop "PYTHON=$PYTHON is not installed"
  ( # what pip is configured with, as uv reads it
    exports="$("$PYTHON" cpu_support/uv_environment.py)" && eval "$exports"
    "$uv" venv --quiet --allow-existing --python "$PYTHON" "$folder"
    if [[ -n "$TORCH_INDEX" ]]; then
      grep '^torch==' "$requirements" |
        UV_DEFAULT_INDEX="$TORCH_INDEX" "$uv" pip install --quiet --no-deps --python "$folder/bin/python" -r -
    fi
    "$uv" pip install --quiet --no-deps --python "$folder/bin/python" -r "$requirements"
  ) || stop "the environment $folder could not be made"
  rm -f "$folder"/.installed-*
  touch "$stamp"
}
