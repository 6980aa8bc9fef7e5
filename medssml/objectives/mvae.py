"""MVAE: a product of experts, learned by the ELBOs of all that a study has, of each modality alone, and of drawn subsets."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.draws import random_ranks, uniform
from medssml.objectives.step import Step
from medssml.objectives.variational import JointVariational


class MVAE(JointVariational):
    """loss = mean over studies of  -[ ELBO(all present) + sum over present m of ELBO({m}) + sum over k drawn S of ELBO(S) ]

        ELBO(S) = sum over m in S of log p(x_m | z) - b * KL(q_S || N(0, I)),   z ~ q_S = N(0, I) * product over m in S of q_m

    Each term reconstructs the modalities of its own subset and no other; the prior is one expert of every product. The drawn
    subsets have 2 to P - 1 of a study's P modalities, the size drawn first, then the subset. A study with one modality has
    one term, and none is drawn for one with two. The parts are those of `JointVariational`.

    [1] Wu, Goodman, Multimodal generative models for scalable weakly-supervised learning, NeurIPS 2018.

    Args:
        model, modalities, latent, beta, weight: see `JointVariational`.
        drawn: k; 1 as in the published code.

    Raises:
        ValueError: as `JointVariational`, or k is negative.
    """

    prior_expert = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        latent: int = 64,
        drawn: int = 1,
        beta: float | Ramp = 1.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, modalities=modalities, latent=latent, beta=beta, weight=weight)
        if drawn < 0:
            raise ValueError(f"MVAE: drawn is {drawn}; fix: 0 or more")
        self.drawn = drawn

    def weights(self, step: Step, present: Tensor) -> Tensor:
        """(B, 2^M - 1) how often each subset is taken; see `JointVariational.weights`."""
        sizes = present.sum(1)
        alone = self.fitting(present) & (self.subsets.sum(1) == 1)
        out = (alone & (sizes[:, None] > 1)).float() + self._one_hot(present)
        for number in range(self.drawn):
            noise = uniform(step.batch.key, 1 + present.shape[1], f"MVAE.subset.{number}", seed=step.seed)
            wanted = 2 + (noise[:, 0] * (sizes - 2).clamp(min=0)).long()
            subset = present & (random_ranks(noise[:, 1:], present) < wanted[:, None])
            out = out + self._one_hot(subset & (sizes[:, None] > 2))
        return out

    def asked(self, present: Tensor, subsets: Tensor) -> Tensor:
        """(E, M) bool: the modalities of the subset."""
        return subsets

    def _one_hot(self, subset: Tensor) -> Tensor:
        """(B, 2^M - 1) 1 at each study's subset (B, M), nowhere for an empty one."""
        bits = (subset.long() << torch.arange(subset.shape[1], device=subset.device)).sum(1)
        return F.one_hot(bits, len(self.subsets) + 1)[:, 1:].float()
