"""On-the-fly gradient modulation: the encoder of a modality that answers better than the others learns more slowly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Clock
from medssml.objectives.held import Held
from medssml.objectives.modulation import Modulation, answered, label_log_probabilities, scale_gradients
from medssml.objectives.step import Step


class GradientModulation(Modulation):
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
        super().__init__(until)
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; fix: above 0, such as 0.5")
        self.alpha, self.noise = alpha, noise
        self.held = Held()

    @torch.no_grad()
    def look(self, step: Step, tasks: Mapping[str, Task]) -> None:
        """Keeps how sure each modality alone is of the labels of a batch."""
        if step.clock.done >= self.until:
            return
        sure = torch.zeros_like(step.present, dtype=torch.float64)
        labels = torch.zeros_like(sure)
        for column in range(len(step.model.modalities)):
            within = torch.zeros_like(step.present)
            within[:, column] = step.present[:, column]
            for found, labelled in label_log_probabilities(step, tasks, answered(step, tasks, within)):
                known = labelled & within[:, column]
                sure[:, column] += torch.where(known, found.exp(), 0.0).double()
                labels[:, column] += known
        # Of each study the mean over its labels; (M, M) the sum of u's over the studies that have v as well.
        told = labels > 0
        mean = torch.where(told, sure / labels.clamp(min=1), 0.0)
        self.held.put((global_sum(mean.T @ told.double()),), step.clock.step)

    @torch.no_grad()
    def modulate(self, clock: Clock, model: MultimodalModel) -> dict[str, float]:
        """See `Modulation.modulate`."""
        held = self.held.take()
        if not held or clock.done >= self.until:
            return {}
        factors = dict(zip(model.modalities, self.factors(sum(s for (s,) in held)).tolist(), strict=True))  # type: ignore[arg-type]
        for name, factor in factors.items():
            scale_gradients(model.encoders[name], factor, noise=self.noise)
        return factors

    def factors(self, sure: Tensor) -> Tensor:
        """(M,) k of each modality, of sure (M, M): the sum of s^u over the studies that have v as well; u the row."""
        both = (sure > 0) & (sure.T > 0) & ~torch.eye(len(sure), dtype=torch.bool, device=sure.device)
        ratio = torch.where(both, sure / torch.where(both, sure.T, 1.0), 0.0)
        rho = ratio.sum(1) / both.sum(1).clamp(min=1)
        return torch.where(rho > 1, 1 - torch.tanh(self.alpha * rho), 1.0)
