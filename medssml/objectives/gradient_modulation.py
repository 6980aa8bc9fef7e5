"""On-the-fly gradient modulation: the encoder of a modality that answers better than the others learns more slowly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medssml.config import Configured
from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Clock
from medssml.objectives.held import Held
from medssml.objectives.step import Step
from medssml.objectives.study_loss import log_probabilities, of_label, wide


class GradientModulation(Configured, nn.Module):
    """Before each step of the optimiser the gradients of the encoder of modality u are multiplied with (OGM-GE)

        k_u = 1 - tanh(alpha rho_u) where rho_u > 1, else 1,   rho_u = mean over v of  sum_i s_i^u / sum_i s_i^v

    with s_i^u the probability that modality u alone gives the label of study i; i are the labelled studies that have u and v.
    Then noise is added with the standard deviation that the gradient of each matrix had (GE). In the paper s^u is the part of
    a linear head after concatenation that reads u; here the fusion is asked with u alone, which any fusion can answer. The mean
    over v for more than two modalities is the authors'.

    [1] Peng et al., Balanced multimodal learning via on-the-fly gradient modulation, CVPR 2022.

    Args:
        alpha: how strongly; 0.1 to 1 in the paper.
        noise: whether to add it.
        until: share of the run after which gradients stay as they are; half in the authors' code.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, alpha: float = 0.5, noise: bool = True, until: float = 0.5) -> None:
        super().__init__()
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; fix: above 0, such as 0.5")
        if not 0 < until <= 1:
            raise ValueError(f"until is {until}; fix: a share of the run above 0 and at most 1")
        self.alpha, self.noise, self.until = alpha, noise, until
        self.held = Held()

    @torch.no_grad()
    def look(self, step: Step, tasks: Mapping[str, Task]) -> None:
        """Keeps how sure each modality alone is of the labels of a batch."""
        if step.clock.done >= self.until:
            return
        modalities = step.model.modalities
        sure = torch.zeros_like(step.present, dtype=torch.float64)
        labels = torch.zeros_like(sure)
        for column in range(len(modalities)):
            within = torch.zeros_like(step.present)
            within[:, column] = step.present[:, column]
            fused = step.fuse(step.encoded, within)
            for name, task in tasks.items():
                if task.kind == "regression" or name not in step.batch.targets:
                    continue
                targets = step.batch.targets[name]
                known = torch.isfinite(targets) & within[:, column]
                p = of_label(
                    log_probabilities(task, wide(step.model.heads[name](fused))), targets.nan_to_num(0.0)
                ).exp()
                sure[:, column] += torch.where(known, p, 0.0).double()
                labels[:, column] += known
        # Of each study the mean over its labels; (M, M) the sum of u's over the studies that have v as well.
        told = labels > 0
        mean = torch.where(told, sure / labels.clamp(min=1), 0.0)
        self.held.put((global_sum(mean.T @ told.double()),), step.clock.step)

    @torch.no_grad()
    def modulate(self, clock: Clock, model: MultimodalModel) -> dict[str, float]:
        """Changes the gradients that are there; modality -> its factor."""
        held = self.held.take()
        if not held or clock.done >= self.until:
            return {}
        factors = dict(zip(model.modalities, self.factors(sum(s for (s,) in held)).tolist(), strict=True))  # type: ignore[arg-type]
        for name, factor in factors.items():
            for parameter in model.encoders[name].parameters():
                if parameter.grad is None:
                    continue
                spread = parameter.grad.std() if self.noise and parameter.ndim > 1 else None
                parameter.grad.mul_(factor)
                if spread is not None:
                    parameter.grad.add_(torch.randn_like(parameter.grad) * spread)
        return factors

    def factors(self, sure: Tensor) -> Tensor:
        """(M,) k of each modality, of sure (M, M): the sum of s^u over the studies that have v as well; u the row."""
        both = (sure > 0) & (sure.T > 0) & ~torch.eye(len(sure), dtype=torch.bool, device=sure.device)
        ratio = torch.where(both, sure / torch.where(both, sure.T, 1.0), 0.0)
        rho = ratio.sum(1) / both.sum(1).clamp(min=1)
        return torch.where(rho > 1, 1 - torch.tanh(self.alpha * rho), 1.0)
