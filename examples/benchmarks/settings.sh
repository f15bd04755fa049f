# Settings of the benchmarks, the same for all harnesses; the environment may set each. They are part of the result.
# shellcheck shell=bash disable=SC2034  (the scripts that source this file use them)

# --- the served model
BASE_URL="${BASE_URL:-http://127.0.0.1:8000/v1}" # OpenAI-compatible server of the checkpoint
MODEL="${MODEL:-sophiavl}"                       # name under which it is served
CONCURRENCY="${CONCURRENCY:-32}"                 # requests at a time
TIMEOUT="${TIMEOUT:-1800}"                       # seconds that one request may take
export OPENAI_API_KEY="${OPENAI_API_KEY:-EMPTY}" # key of the server and of the judge

# --- prompt, sampling, pixels
PROMPT="${PROMPT:-ours}"               # system prompt: ours, released_7b (what the published 7B was trained with), or a file
TEMPERATURE="${TEMPERATURE:-0}"        # 0: greedy
MAX_TOKENS="${MAX_TOKENS:-2048}"       # most tokens of a response
MIN_PIXELS="${MIN_PIXELS:-1003520}"    # least pixels of an image: 1280 x 28 x 28, as in the published evaluation
MAX_PIXELS="${MAX_PIXELS:-12845056}"   # most pixels of an image: 16384 x 28 x 28, likewise
MAX_LEN="${MAX_LEN:-32768}"            # longest conversation that the server takes (tokens)

# --- what is run
BENCHMARKS="${BENCHMARKS:-MMMU MME MMStar ChartQA MMBench MathVista MathVerse}" # some of the paper's seven
LOCAL_DATA="${LOCAL_DATA:-}"           # folder of local_data.py, to run in the place of BENCHMARKS
OUT="${OUT:-outputs/benchmarks}"       # folder of the results
JUDGE="${JUDGE:-}"                     # model that judges answers where a benchmark wants one; empty: none
JUDGE_URL="${JUDGE_URL:-https://api.openai.com/v1}" # its OpenAI-compatible server
PYTHON="${PYTHON:-python3.11}"         # interpreter of a harness' environment
TORCH_INDEX="${TORCH_INDEX:-}"         # index to take torch from, where the default one has not the build that is wanted
