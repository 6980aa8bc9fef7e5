"""Adaptive gradient modulation: an encoder is held back, or pushed, by how far its share in the answers strays from its mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from medssml.losses import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.clock import Clock
from medssml.objectives.held import Held
from medssml.objectives.modulation import Modulation, answered, label_log_probabilities, scale_gradients
from medssml.objectives.step import Step

#: The exponent of a factor is at most this.
MOST = 10.0


class AdaptiveGradientModulation(Modulation):
    """Before each step of the optimiser the gradients of the encoder of modality u are multiplied with (AGM)

        k_u = exp(-alpha (r_u - tau_u)),   r_u = exp(mean over v of (s_v - s_u)),   tau_u = exp(mean over v of (m_v - m_u))

    s_u is the cross-entropy of what u contributes to the answer, m_u its mean over the steps before; means are over the labelled
    studies that have u and v. What u contributes are its Shapley values of the logits, of a coalition's logits those of the
    fusion asked with a part of the study, and of nothing 0:

        phi_u = sum over S without u of  |S|! (M - |S| - 1)! / M!  (logits(S with u) - logits(S))

    so that they add up to the logits; of two modalities phi_u is half of logits(u, v) - logits(v) + logits(u). Where u answers
    better than it used to, relative to the others, its encoder learns more slowly; where worse, faster. The first step, which has
    no mean before it, is left as it is.

    Written from the paper [1], of which no code is used. There k_u scales what flows back through phi_u; here, as the fusion is
    any, it scales the gradients of u's encoder. It costs 2^M - 1 passes of the fusion.

    [1] Li et al., Boosting multi-modal model performance with adaptive gradient modulation, ICCV 2023.

    Args:
        alpha: how strongly.
        until: share of the run after which gradients stay as they are; the paper has no end.

    Raises:
        ValueError: a number out of its range.
    """

    def __init__(self, alpha: float = 1.0, until: float = 1.0) -> None:
        super().__init__(until)
        if alpha <= 0:
            raise ValueError(f"alpha is {alpha}; fix: above 0, such as 1")
        self.alpha = alpha
        self.held = Held()
        # (M, M) m_u over the studies that have v as well, and (M, M) over how many steps; of M = 0 before the first one.
        self.register_buffer("mean", torch.zeros(0, 0, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros(0, 0, dtype=torch.int64))
        self.mean: Tensor
        self.steps: Tensor
        self._last: Tensor | None = None

    @torch.no_grad()
    def look(self, step: Step, tasks: Mapping[str, Task]) -> None:
        """Keeps the cross-entropy of what each modality contributes to the answers for a batch."""
        if step.clock.done >= self.until:
            return
        own = shapley_logits(step, tasks)
        entropy = torch.zeros_like(step.present, dtype=torch.float64)
        labels = torch.zeros_like(entropy)
        for column in range(len(step.model.modalities)):
            of_it = {name: values[column] for name, values in own.items()}
            for found, labelled in label_log_probabilities(step, tasks, of_it):
                known = labelled & step.present[:, column]
                entropy[:, column] -= torch.where(known, found, 0.0).double()
                labels[:, column] += known
        told = (labels > 0).double()
        mean = torch.where(labels > 0, entropy / labels.clamp(min=1), 0.0)
        self.held.put((global_sum(mean.T @ told), global_sum(told.T @ told)), step.clock.step)

    @torch.no_grad()
    def modulate(self, clock: Clock, model: MultimodalModel) -> dict[str, float]:
        """See `Modulation.modulate`."""
        held = self.held.take()
        self._last = None
        if not held or clock.done >= self.until:
            return {}
        total, count = (torch.stack(part).sum(0) for part in zip(*held, strict=True))
        score = torch.where(count > 0, total / count.clamp(min=1), torch.nan)
        self._last = score
        factors = dict(zip(model.modalities, self.factors(score).tolist(), strict=True))
        for name, factor in factors.items():
            scale_gradients(model.encoders[name], factor, noise=False)
        return factors

    def factors(self, score: Tensor) -> Tensor:
        """(M,) k of each modality, of score (M, M): s_u over the studies that also have v, NaN where there is none; u the row."""
        if self.mean.shape != score.shape:
            return score.new_ones(len(score))
        pairs = torch.isfinite(score) & (self.steps > 0) & ~torch.eye(len(score), dtype=torch.bool, device=score.device)
        now, before = (_advantage(part.to(score), pairs) for part in (score, self.mean))
        factor = (self.alpha * (before.exp() - now.exp())).clamp(max=MOST).exp()
        return torch.where(pairs.any(1), factor, 1.0)

    @torch.no_grad()
    def after_step(self, clock: Clock) -> None:
        """See `Modulation.after_step`: the means take in what this step saw."""
        score, self._last = self._last, None
        if score is None:
            return
        if self.mean.shape != score.shape:
            self.mean, self.steps = torch.zeros_like(score), torch.zeros_like(score, dtype=torch.int64)
        seen = torch.isfinite(score)
        self.steps = self.steps + seen
        self.mean = torch.where(seen, self.mean + (score - self.mean) / self.steps.clamp(min=1), self.mean)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # Of as many modalities as the run that was saved has.
        for name in ("mean", "steps"):
            saved = state_dict.get(prefix + name)
            if saved is not None:
                setattr(self, name, getattr(self, name).new_zeros(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)


def shapley_logits(step: Step, tasks: Mapping[str, Task]) -> dict[str, Tensor]:
    """Task of classes -> (M, B) or (M, B, K), what each modality contributes to a study's logits; 0 where it is absent."""
    width = len(step.model.modalities)
    weights = shapley_weights(width).to(step.present.device)
    out: dict[str, Tensor] = {}
    for subset in range(1, 2**width):
        members = torch.tensor([bool(subset >> column & 1) for column in range(width)], device=step.present.device)
        for name, logits in answered(step, tasks, step.present & members).items():
            # A study that has nothing of the coalition answers 0, as does the coalition of nobody.
            something = (step.present & members).any(1).reshape(-1, *(1,) * (logits.ndim - 1))
            share = weights[:, subset].to(logits).reshape(-1, *(1,) * logits.ndim)
            out[name] = out.get(name, torch.zeros(())) + share * torch.where(something, logits, 0.0)
    return out


def shapley_weights(players: int) -> Tensor:
    """(M, 2^M) float64, what the value of each coalition counts in the Shapley value of each player; bit j is player j."""
    weights = torch.zeros(players, 2**players, dtype=torch.float64)
    for subset in range(2**players):
        size = subset.bit_count()
        for player in range(players):
            if subset >> player & 1:
                weights[player, subset] = 1 / (players * math.comb(players - 1, size - 1))
            else:
                weights[player, subset] = -1 / (players * math.comb(players - 1, size))
    return weights


def _advantage(score: Tensor, pairs: Tensor) -> Tensor:
    """(M,) mean over v of s_v - s_u, of score (M, M) over the pairs (M, M) bool."""
    difference = torch.where(pairs & pairs.T, score.T - score, 0.0)
    return difference.sum(1) / (pairs & pairs.T).sum(1).clamp(min=1)
