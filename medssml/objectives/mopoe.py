"""MoPoE: a mixture over all subsets of products of experts."""

from __future__ import annotations

from torch import Tensor

from medssml.objectives.step import Step
from medssml.objectives.variational import JointVariational


class MoPoE(JointVariational):
    """loss = mean over studies of  mean over S of  -[ sum over present m of log p(x_m | z_S) - b * KL(q_S || N(0, I)) ]

        z_S ~ q_S, the product of the experts in S;   S: the non-empty subsets of what the study has

    The posterior is the mean of the products over all subsets, each of which reconstructs all that the study has; its
    divergence is bounded by the mean of theirs. Every study takes every subset in every step. Published code hands each
    subset a slice of the batch instead, so that a study's posterior depends on its place in it and on who has what. The
    products are without the prior, as in the paper; released code adds it to the full subset alone. The parts are those
    of `JointVariational`.

    [1] Sutter, Daunhawer, Vogt, Generalized multimodal ELBO, ICLR 2021.

    Args:
        model, modalities, latent, beta, weight: see `JointVariational`.

    Raises:
        ValueError: as `JointVariational`.
    """

    def weights(self, step: Step, present: Tensor) -> Tensor:
        """(B, 2^M - 1) the same for each subset that a study has; see `JointVariational.weights`."""
        fitting = self.fitting(present)
        return fitting / fitting.sum(1, keepdim=True).clamp(min=1)
