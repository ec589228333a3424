#!/usr/bin/env bash
# fcbench on the nodes of a Slurm allocation, joined to a Ray cluster for as long as the job lasts:
#
#     sbatch --nodes 4 --cpus-per-task 16 --gpus-per-node 1 benchmarks/examples/slurm.sh \
#         --codec strata --cache-dir SHARED/cache --out SHARED/run
#
# What follows the script goes to `fcbench run`. The cache and OUT lie on a file system that all nodes share. A job that
# ends early resumes when it is submitted again.
#SBATCH --job-name=fcbench
#SBATCH --ntasks-per-node=1
set -euo pipefail

port=${FCBENCH_RAY_PORT:-6379}
read -r -a nodes <<< "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | tr '\n' ' ')"
on_head=(srun --overlap --nodes=1 --ntasks=1 --nodelist="${nodes[0]}")
ip=$("${on_head[@]}" hostname --ip-address | awk '{print $1}')
address=$ip:$port
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')  # other users of these nodes do not join
trap 'kill $(jobs -p) 2> /dev/null; wait' EXIT

start=(ray start --block --disable-usage-stats --num-cpus="${SLURM_CPUS_PER_TASK:-1}")
"${on_head[@]}" "${start[@]}" --head --node-ip-address="$ip" --port="$port" --include-dashboard=false &
until ray status --address "$address" > /dev/null 2>&1; do sleep 1; done
for node in "${nodes[@]:1}"; do
  srun --overlap --nodes=1 --ntasks=1 --nodelist="$node" "${start[@]}" --address="$address" &
done
fcbench run --ray "$address" "$@"
