#!/bin/bash
# One study on the 8 GPUs of a node: sbatch docs/cluster/slurm-job.sh
#SBATCH --job-name=recap
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail
RECAP=${RECAP:-target/debug/experiments-mpi}
STUDY=${STUDY:-freeze_vit}
read -ra OPTIONS <<< "${OPTIONS:---profile paper --dataset msrvtt=MSRVTT --device cuda}"

code=0
srun --mpi=pmix --kill-on-bad-exit=1 "$RECAP" ablation "$STUDY" "${OPTIONS[@]}" --resume --no-tui || code=$?
# 130: the signal came before the time limit, all processes stopped and the state is saved
if [ "$code" -eq 130 ]; then
  scontrol requeue "$SLURM_JOB_ID"
  exit 0
fi
exit "$code"
