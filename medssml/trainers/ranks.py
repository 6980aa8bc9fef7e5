"""Which of the processes that train together this one is: asked of whoever started them, as Lightning does."""

from __future__ import annotations

import os

from medssml.trainers.settings import TrainerSettings


def is_first(trainer: TrainerSettings) -> bool:
    """Whether this process is the one that writes: of several that train together, the others only compute.

    Where a run is one process, it is the first whatever RANK, LOCAL_RANK or SLURM_PROCID a scheduler has left in the
    environment: they count the processes of another program.
    """
    if trainer.devices * trainer.num_nodes == 1:
        return True
    import torch.distributed as dist
    from lightning.pytorch.plugins.environments import SLURMEnvironment, TorchElasticEnvironment

    if dist.is_available() and dist.is_initialized():
        return dist.get_rank() == 0
    if SLURMEnvironment.detect():
        names = ["SLURM_PROCID"]
    elif TorchElasticEnvironment.detect():
        names = ["RANK"]
    else:
        names = ["NODE_RANK", "LOCAL_RANK"]
    return not any(int(os.environ.get(name) or 0) for name in names)
