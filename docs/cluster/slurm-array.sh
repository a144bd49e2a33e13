#!/bin/bash
# Every run of a study as a job of its own, on one GPU each: sbatch docs/cluster/slurm-array.sh
#SBATCH --job-name=recap
#SBATCH --array=0-8%4
#SBATCH --ntasks=1
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=TERM@300
set -euo pipefail
RECAP=${RECAP:-target/debug/experiments}
STUDY=${STUDY:-freeze_vit}
read -ra VARIANTS <<< "${VARIANTS:-all_trainable freeze_vit qformer_only}"
SEEDS=${SEEDS:-3} # --array above: number of variants times SEEDS, less one
read -ra OPTIONS <<< "${OPTIONS:---profile paper --dataset msrvtt=MSRVTT --device cuda}"

variant=${VARIANTS[SLURM_ARRAY_TASK_ID / SEEDS]}
seed=$((SLURM_ARRAY_TASK_ID % SEEDS + 1))
code=0
srun --ntasks=1 "$RECAP" ablation "$STUDY" --only "$variant" --seed "$seed" "${OPTIONS[@]}" --no-tui || code=$?
if [ "$code" -eq 130 ]; then
  scontrol requeue "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
  exit 0
fi
exit "$code"
