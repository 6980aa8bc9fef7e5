"""`--print-slurm`: a batch script that runs the command on a cluster, and runs it again where it was stopped."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssml.runs.training_config import DataSettings
    from medssml.trainers.settings import TrainerSettings

_FLAG = "--print-slurm"
#: s before the end of the time limit at which SLURM sends the signal that makes a run save and stop.
_NOTICE_S = 180


def script(command: Sequence[str], trainer: TrainerSettings, data: DataSettings) -> str:
    """The script of `medssml COMMAND`.

    Args:
        command: verb and flags, as they were given.
        trainer, data: of the config.
    """
    verb = command[0] if command else "pretrain"
    words = shlex.join(["medssml", *(word for word in command if word != _FLAG)])
    gpus = [] if trainer.device == "cpu" else [f"#SBATCH --gpus-per-node={trainer.devices}"]
    activate = Path(sys.prefix) / "bin" / "activate"
    lines = [
        "#!/bin/bash",
        f"#SBATCH --job-name=medssml-{verb}",
        f"#SBATCH --nodes={trainer.num_nodes}",
        f"#SBATCH --ntasks-per-node={trainer.devices}",
        *gpus,
        f"#SBATCH --cpus-per-task={max(2, data.num_workers + 1)}",
        "#SBATCH --time=24:00:00",
        f"#SBATCH --signal=TERM@{_NOTICE_S}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f"#SBATCH --output=medssml-{verb}-%j.txt",
        "# Yours to set: time, memory, partition, account.",
        "",
        *([f"source {shlex.quote(str(activate))}"] if activate.is_file() else []),
        "export OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK",
        "",
        "# One task per device; what is prepared and saved lies where --out and --cache say, on a disk that all nodes see.",
        f"srun {words}",
        "code=$?",
        "",
        "# 75: stopped by the signal, and saved. The same command continues where it stopped.",
        'if [ "$code" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi',
        'exit "$code"',
    ]
    return "\n".join(lines)
