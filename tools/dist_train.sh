#!/usr/bin/env bash
# `mmms train` in several processes: one per GPU or, without GPUs, on the CPU's cores.
#   tools/dist_train.sh CONFIG PROCESSES [OPTIONS of mmms train]
# Several nodes: the same on each, with NNODES, NODE_RANK (0, 1, ...), MASTER_ADDR (of node 0) and PORT set.
set -euo pipefail
if [ $# -lt 2 ] || ! [[ "$2" =~ ^[1-9][0-9]*$ ]]; then
  echo "usage: tools/dist_train.sh CONFIG PROCESSES [OPTIONS of mmms train]" >&2
  exit 2
fi
config=$1 processes=$2
shift 2
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} # per process; torchrun would set it too, with a warning
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes "${NNODES:-1}" --node_rank "${NODE_RANK:-0}" --nproc_per_node "$processes" \
  --master_addr "${MASTER_ADDR:-127.0.0.1}" --master_port "${PORT:-29500}" \
  "$(dirname "$0")/train.py" "$config" --launcher pytorch "$@"
