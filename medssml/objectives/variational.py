"""Joint variational models: one latent for all that a study has, inferred from any subset of its modalities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp, ends, value_at
from medssml.objectives.draws import uniform
from medssml.objectives.step import Step

#: More modalities than this have too many subsets to go through in every step.
MOST_MODALITIES = 6
#: Bounds of the log variance of an expert.
LOG_VARIANCE = 8.0


class Gaussians(NamedTuple):
    """mean, precision: (..., d) of normal distributions with independent coordinates."""

    mean: Tensor
    precision: Tensor

    def log_density(self, z: Tensor) -> Tensor:
        """(...) log density at z (..., d)."""
        squared = (z - self.mean).square() * self.precision
        return 0.5 * (self.precision.log() - squared - math.log(2 * math.pi)).sum(-1)

    def divergence_from_prior(self) -> Tensor:
        """(...) KL divergence of each from N(0, I)."""
        return 0.5 * (1 / self.precision + self.mean.square() - 1 + self.precision.log()).sum(-1)


class Terms(NamedTuple):
    """The ELBO terms of a batch, one for each study and subset that its method takes; E of them.

    study, subset: (E,) int64. weight: (E,) in the study's sum. asked: (E, M) bool, which modalities are reconstructed.
    """

    study: Tensor
    subset: Tensor
    weight: Tensor
    asked: Tensor


class JointVariational(Objective):
    """loss = mean over studies of  sum over subsets S of w_S * [ sum over m asked of |x_m - d_m(z_S)|^2 / 2 + b * KL_S ]

    Each modality has an expert q_m(z | x_m) = N(mu_m, diag(var_m)), read from its pooled vector. z_S is drawn from the product
    of the experts in S, whose precisions add up. x_m, the data, is the pooled vector, normalised over its features and without
    gradient, under a normal likelihood of unit variance. Which subsets, weights, questions and divergences there are is
    what the methods of this family differ in. An absent modality has no expert and is not asked for.

    Args:
        model: the model.
        modalities: of which; all by default.
        latent: d.
        beta: b, or a `Ramp`: the published codes raise it from 0 over the first epochs.
        weight: in the sum of objectives.

    Raises:
        ValueError: too many modalities, or a negative b.
    """

    #: Whether N(0, I) is one more expert of every product.
    prior_expert = False

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        latent: int = 64,
        beta: float | Ramp = 1.0,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.modalities = chosen(model, modalities, type(self).__name__)
        if len(self.modalities) > MOST_MODALITIES:
            raise ValueError(
                f"{type(self).__name__}: {len(self.modalities)} modalities; fix: at most {MOST_MODALITIES}"
            )
        if min(ends(beta)) < 0:
            raise ValueError(f"{type(self).__name__}: beta is {beta}; fix: 0 or more")
        self.latent, self.beta = latent, beta
        self.experts = nn.ModuleDict({name: nn.Linear(model.dim, 2 * latent) for name in self.modalities})
        self.decoders = nn.ModuleDict({name: _decoder(latent, model.dim) for name in self.modalities})
        count = len(self.modalities)
        bits = torch.arange(1, 2**count)[:, None] >> torch.arange(count)
        self.register_buffer("subsets", (bits & 1).bool(), persistent=False)
        self.subsets: Tensor

    def weights(self, step: Step, present: Tensor) -> Tensor:
        """(B, 2^M - 1) weight of each subset's term in the sum of a study; 0 for a subset that it does not have.

        Args:
            present: (B, M) bool, of `modalities`. Row s of `subsets` has the bits of s + 1.
        """
        raise NotImplementedError

    def asked(self, present: Tensor, subsets: Tensor) -> Tensor:
        """(E, M) bool, what is reconstructed of studies that have `present` (E, M) from `subsets` (E, M): all they have."""
        return present

    def divergence(self, z: Tensor, drawn: Gaussians, experts: Gaussians, present: Tensor) -> Tensor:
        """(E,) how far the posterior is from the prior N(0, I).

        Args:
            z: (E, d). drawn: what it was drawn from. experts: (E, M, d) of its study. present: (E, M) bool.
        """
        return drawn.divergence_from_prior()

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and its two parts: "reconstruction" and "divergence"."""
        count = self._count(step)
        if count == 0:
            return None
        parts = torch.stack([global_sum(part) for part in self._parts(step)]) / count
        loss = parts[0] + value_at(self.beta, step.clock) * parts[1]
        reconstruction, divergence = parts.detach()
        return {"loss": loss * step.share(self._count), "reconstruction": reconstruction, "divergence": divergence}

    def fitting(self, present: Tensor) -> Tensor:
        """(B, 2^M - 1) bool, which subsets a study has, of present (B, M)."""
        return ~(self.subsets & ~present[:, None]).any(-1)

    def _parts(self, step: Step) -> tuple[Tensor, Tensor]:
        """This rank's weighted sums of the errors of reconstruction and of the divergences."""
        present = self._present(step)
        weights = self.weights(step, present)
        study, subset = weights.nonzero(as_tuple=True)
        members, has = self.subsets[subset], present[study]
        terms = Terms(study, subset, weights[study, subset], self.asked(has, members))
        with torch.autocast(present.device.type, enabled=False):
            experts = self._experts(step)
            drawn = self._product(Gaussians(*(part[study] for part in experts)), members)
            z = drawn.mean + self._noise(step)[study, subset].to(drawn.mean) / drawn.precision.sqrt()
            divergence = self.divergence(z, drawn, Gaussians(*(part[study] for part in experts)), has)
            return (terms.weight * self._errors(step, terms, z)).sum(), (terms.weight * divergence).sum()

    def _experts(self, step: Step) -> Gaussians:
        """(B, M, d) mean and precision of each expert, 0 and 0 where the modality is absent."""
        like = next(self.parameters())
        mean, precision = (like.new_zeros(len(step.present), len(self.modalities), self.latent) for _ in range(2))
        for place, (name, expert) in enumerate(self.experts.items()):
            if name in step.encoded:
                at = (step.batch.rows(name), torch.full_like(step.batch.rows(name), place))
                found, logs = expert(step.encoded[name].pooled.to(like.dtype)).chunk(2, dim=1)
                mean = mean.index_put(at, found)
                precision = precision.index_put(at, (-logs.clamp(-LOG_VARIANCE, LOG_VARIANCE)).exp())
        return Gaussians(mean, precision)

    def _product(self, experts: Gaussians, members: Tensor) -> Gaussians:
        """(E, d) product of those of the experts (E, M, d) that are members (E, M)."""
        precision = torch.where(members[..., None], experts.precision, 0.0)
        total = precision.sum(1) + float(self.prior_expert)
        return Gaussians((precision * experts.mean).sum(1) / total, total)

    def _noise(self, step: Step) -> Tensor:
        """(B, 2^M - 1, d) standard normal numbers that belong to each study."""
        size = len(self.subsets) * self.latent
        drawn = uniform(step.batch.key, size, type(self).__name__, seed=step.seed)
        # A number at either end would be infinite.
        normal = torch.special.ndtri(drawn.double().clamp(1e-7, 1 - 1e-7))
        return normal.view(-1, len(self.subsets), self.latent)

    def _errors(self, step: Step, terms: Terms, z: Tensor) -> Tensor:
        """(E,) sum over the modalities asked for of |x_m - d_m(z)|^2 / 2."""
        out = z.new_zeros(len(z))
        for place, (name, decoder) in enumerate(self.decoders.items()):
            if name not in step.encoded:
                continue
            entries = terms.asked[:, place].nonzero().squeeze(1)
            feature = step.encoded[name].pooled.detach().to(z.dtype)
            position = step.present[:, step.batch.column(name)].cumsum(0) - 1
            x = F.layer_norm(feature, feature.shape[-1:])[position[terms.study[entries]]]
            out = out.index_add(0, entries, 0.5 * (decoder(z[entries]) - x).square().sum(1))
        return out

    def _present(self, step: Step) -> Tensor:
        return step.present[:, [step.batch.column(name) for name in self.modalities]]

    def _count(self, step: Step) -> Tensor:
        """Studies of all ranks that have any of the modalities."""
        return global_sum(self._present(step).any(1).sum())


def _decoder(latent: int, dim: int) -> nn.Sequential:
    """From the latent back to a pooled vector, as wide within as that."""
    return nn.Sequential(nn.Linear(latent, dim), nn.GELU(), nn.Linear(dim, dim))
