"""MMVAE: a mixture of experts; what is drawn from each modality's expert reconstructs all modalities."""

from __future__ import annotations

import torch
from torch import Tensor

from medssml.objectives.step import Step
from medssml.objectives.variational import Gaussians, JointVariational


class MMVAE(JointVariational):
    """loss = mean over studies of  -1/P * sum over present m of  [ sum over present n of log p(x_n | z_m) - b * D(z_m) ]

        D(z) = log(q(z) / p(z)),   z_m ~ q_m,   q(z) = 1/P * sum over m of q_m(z),   p = N(0, I)

    Each of a study's P modalities is a component of the mixture and is drawn from in every step (stratified sampling), so that no
    component falls to a study by its place in the batch. Each reconstructs all that the study has, across modalities too. The
    divergence is that of the mixture at what was drawn. The parts are those of `JointVariational`, which are normal where the
    paper has Laplace distributions and its bound of several samples.

    [1] Shi, Siddharth, Paige, Torr, Variational mixture-of-experts autoencoders for multi-modal deep generative models,
    NeurIPS 2019.

    Args:
        model, modalities, latent, beta, weight: see `JointVariational`.

    Raises:
        ValueError: as `JointVariational`.
    """

    def weights(self, step: Step, present: Tensor) -> Tensor:
        """(B, 2^M - 1) 1 / P of each modality alone; see `JointVariational.weights`."""
        alone = self.fitting(present) & (self.subsets.sum(1) == 1)
        return alone / present.sum(1, keepdim=True).clamp(min=1)

    def divergence(self, z: Tensor, drawn: Gaussians, experts: Gaussians, present: Tensor) -> Tensor:
        """(E,) log of the mixture's density over the prior's, at what was drawn."""
        # Of an absent expert any numbers will do: its density counts nowhere.
        known = Gaussians(experts.mean, torch.where(present[..., None], experts.precision, 1.0))
        densities = known.log_density(z[:, None]).masked_fill(~present, -torch.inf)
        mixture = densities.logsumexp(1) - present.sum(1).log()
        return mixture - Gaussians(torch.zeros_like(z), torch.ones_like(z)).log_density(z)
