#!/usr/bin/env bash
# The paper's run (arXiv 2505.17018): Qwen2.5-VL-7B-Instruct, Trust-GRPO with a thinking reward, 8 x 80 GB GPUs.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source examples/common.sh

usage() {
  cat <<EOF
Usage: bash examples/run_qwen2_5_vl_7b_trust_grpo.sh [--dry-run[=full]] [Hydra overrides]

$(rl_settings)

Several nodes, in an environment and a file system that all share (examples/slurm_several_nodes.sbatch does it with Slurm):
  export RAY_AUTH_TOKEN=THE_TOKEN              on each node, the same long random text (openssl rand -hex 32)
  ray start --head --port=6379                 on the first node
  ray start --address=FIRST_NODE:6379          on each of the others
  RAY_ADDRESS=FIRST_NODE:6379 NODES=2 TRM_URL=http://ITS_MACHINE:8000/v1 bash examples/run_qwen2_5_vl_7b_trust_grpo.sh
  ray stop                                     on each node, at the end

The ablations of the paper are one override each:
  thinking_reward=outcome_only             plain GRPO
  thinking_reward=no_trust                 without the trust weight
  thinking_reward=no_trust_no_annealing    without trust weight and annealing
  thinking_reward=published_code           as the published code does it
So are two rivals of it:
  thinking_reward=gdpo                     outcome and thinking normalised apart, added, normalised over the batch
  thinking_reward=process_aware            thinking normalised among the right responses only
EOF
}
read_flags "$@"
NAME="${NAME:-qwen2_5_vl_7b_trust_grpo}" # experiment name
train_rl
