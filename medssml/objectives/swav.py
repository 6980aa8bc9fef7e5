"""SwAV: what one look at a study, or one modality of it, says of its cluster, another look or modality predicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.losses import sinkhorn
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, two_or_more
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.recent_vectors import RecentVectors
from medssml.objectives.sides import Across, Side, count_of_both, looks_for, ordered_pairs, rows_of_both
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class Prototypes(nn.Module):
    """K unit vectors; the cosines of vectors with them."""

    def __init__(self, count: int, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(F.normalize(torch.randn(count, dim), dim=1))

    def forward(self, z: Tensor, *, frozen: bool = False) -> Tensor:
        """(n, K) cosines of unit vectors z (n, D); `frozen` lets no gradient reach the prototypes."""
        weight = self.weight.detach() if frozen else self.weight
        with torch.autocast(z.device.type, enabled=False):
            return z @ F.normalize(weight, dim=1).T

    @torch.no_grad()
    def normalise(self) -> None:
        """Back to unit length, which a step of the optimiser leaves."""
        self.weight.copy_(F.normalize(self.weight, dim=1))


class SwAV(Objective):
    """loss = mean over studies and ordered pairs of sides (s, t) of  -sum over k of q_s[k] log softmax(z_t C / t)[k]

    A side is a modality in a look; z is its unit vector in the shared space, C are prototypes that all sides share, and q_s,
    the code, is `sinkhorn(z_s C)` among the studies of all ranks that have the side: each side spreads over all prototypes.
    Across modalities the loss is defined for every study with two of them; across looks, as in the paper, for each
    modality by itself. There are no negatives, so one subject's studies may share a prototype. Embeddings of earlier batches,
    scored with the present prototypes, join in the codes once the queue is full, for batches that hold too few studies.

    [1] Caron et al., Unsupervised learning of visual features by contrasting cluster assignments, NeurIPS 2020.

    Args:
        model: the model.
        modalities: of which; all by default.
        across: what differs between the two sides of a pair: the modality, the look at the same modality, or either.
        prototypes: K; 3,000 in the paper, for a million images: take several times the number of kinds expected.
        dim: of the space. temperature: t; 0.1 as in the paper. epsilon: of Sinkhorn; 0.05 as in the paper.
        queue: embeddings kept of each side; 0 for none. queue_from_epoch: first epoch in which they are used.
        freeze_epochs: first epochs in which the prototypes stay.
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives.

    Raises:
        ValueError: fewer than two prototypes, or no two sides.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        across: Across = "modalities",
        prototypes: int = 64,
        dim: int = 128,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        queue: int = 0,
        queue_from_epoch: int = 0,
        freeze_epochs: int = 1,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        names = chosen(model, modalities, "SwAV")
        if prototypes < 2:
            raise ValueError(f"prototypes is {prototypes}; fix: 2 or more")
        self.views = looks_for(across)
        self.pairs = ordered_pairs(names, across, "SwAV")
        self.sides = [Side(look, name) for look in range(self.views) for name in names]
        self.temperature, self.epsilon = temperature, epsilon
        self.freeze_epochs, self.queue_from_epoch = freeze_epochs, queue_from_epoch
        self.space = SharedSpace(model.dim, dim, names, batch_norm)
        self.prototypes = Prototypes(prototypes, dim)
        self.queue = RecentVectors(len(self.sides), queue, dim)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of prototypes that are the nearest of some study."""
        count = self._count(step)
        if count == 0:
            return None
        frozen = step.clock.epoch < self.freeze_epochs
        vectors = [self.space(side.modality, step.views[side.look].pooled_of_all(side.modality)) for side in self.sides]
        scores = {side: self.prototypes(z, frozen=frozen) for side, z in zip(self.sides, vectors, strict=True)}
        codes = {side: self._codes(step, place, scores[side]) for place, side in enumerate(self.sides)}
        self.queue.offer(step, vectors)

        mean = swapped_prediction(step, self.pairs, codes, scores, self.temperature) / count
        used = share_used(codes.values(), len(self.prototypes.weight))
        return {"loss": mean * step.share(self._count), "prototypes_used": used}

    def after_step(self, clock: Clock) -> None:
        """Prototypes become unit vectors again, and the queue moves."""
        self.prototypes.normalise()
        self.queue.advance()

    def kept(self) -> dict[str, nn.Module]:
        """The space, in which a modality finds another."""
        return {"space": self.space}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`."""
        out = super().restricted_to(arguments, left)
        return two_or_more(out, left) if arguments.get("across", "modalities") == "modalities" else out

    def _codes(self, step: Step, place: int, scores: Tensor) -> Tensor:
        """(n, K) codes of the batch's rows of a side, with those of the queue to balance them."""
        every = scores.detach()
        if self.queue.length and self.queue.full(place) and step.clock.epoch >= self.queue_from_epoch:
            earlier = self.prototypes(self.queue.of(place).to(every), frozen=True)
            every = torch.cat([every, earlier])
        return sinkhorn(every, epsilon=self.epsilon)[: len(scores)]

    def _count(self, step: Step) -> Tensor:
        return count_of_both(step, self.pairs)


def swapped_prediction(
    step: Step,
    pairs: Sequence[tuple[Side, Side]],
    codes: Mapping[Side, Tensor],
    scores: Mapping[Side, Tensor],
    temperature: float,
) -> Tensor:
    """() sum over pairs (s, t), and studies of all ranks with both, of the cross-entropy of t's scores with the code of s.

    Args:
        codes, scores: side -> (n, K) of all studies of all ranks that have it.
    """
    total = []
    for source, target in pairs:
        a, b = rows_of_both(step, source, target)
        total.append(-(codes[source][a] * (scores[target][b] / temperature).log_softmax(1)).sum())
    return torch.stack(total).sum()


def share_used(codes: Iterable[Tensor], prototypes: int) -> Tensor:
    """() share of the prototypes that are the nearest of some study."""
    nearest = torch.cat([code.argmax(1) for code in codes])
    return torch.zeros(prototypes, device=nearest.device).index_fill(0, nearest, 1.0).mean()
