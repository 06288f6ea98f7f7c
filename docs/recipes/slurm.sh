#!/bin/bash
# Trains on 2 nodes with 4 GPUs each, one process for each GPU:
#   sbatch docs/recipes/slurm.sh
#SBATCH --job-name=cifar10
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

srun python -m hatebm_jax.main --config=configs/cifar10.py --workdir=/mnt/share/runs/cifar10
status=$?
if [ "$status" -eq 143 ]; then  # The run was told to stop, and has saved.
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
