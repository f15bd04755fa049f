# Shared by the launch scripts: `source` it after `cd` to the repository.

stop() { echo "$(basename "$0"): $*" >&2; exit 1; }

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
