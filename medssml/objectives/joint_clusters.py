"""Joint clusters: studies are clustered by what their modalities say together, and each modality finds the cluster."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.losses import all_gather_rows
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import enough, spherical_k_means
from medssml.objectives.recent_vectors import RecentVectors
from medssml.objectives.step import Step
from medssml.randomness import mix
from medssml.spaces import SharedSpace


class JointClusters(Objective):
    """loss = mean over studies and their modalities of  -(S_c - d) / t + logsumexp over k of (S_k - d [k = c]) / t

        S = z_m C^T,   c = argmax over k of f C_k,   f = unit(mean of z_m over the study's modalities)

    C are the centres of k-means by cosine over f of this batch, on all ranks, and of the batches in the queue. Every modality
    has the label of the whole study, whichever it has, for any number of modalities. The papers take S as it is, which on unit
    vectors gives an almost flat softmax; hence t.

    [1] Chen et al., Multimodal clustering networks for self-supervised learning from unlabeled videos, ICCV 2021.
    [2] Halawa et al., Multi-task multi-modal self-supervised learning for facial expression recognition, CVPR workshops 2024
    (ConCluGen).

    Args:
        model: the model.
        modalities: of which; all by default.
        clusters: K. dim: of the space. temperature: t. margin: d; 0.001 as in the papers.
        each: each modality finds the label by itself; else f does.
        queue: studies of earlier batches that are clustered along.
        start_epoch: first epoch with this loss; features of the first ones make no clusters.
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        clusters: int = 32,
        dim: int = 128,
        temperature: float = 0.1,
        margin: float = 0.001,
        each: bool = True,
        queue: int = 512,
        start_epoch: int = 0,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.clusters, self.temperature, self.margin = enough(clusters), temperature, margin
        self.each, self.start_epoch = each, start_epoch
        self.space = SharedSpace(model.dim, dim, chosen(model, modalities, "JointClusters"), batch_norm)
        self.queue = RecentVectors(1, queue, dim)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the share of studies and modalities whose cluster is found."""
        if step.clock.epoch < self.start_epoch:
            return None
        vectors = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        rows = {name: step.everyone.rows(step.model.modalities.index(name)) for name in vectors}
        fused, having = self._fused(step, vectors, rows)
        # In the order of the keys, which is that of no batch and no rank.
        order = all_gather_rows(step.batch.key)[having].argsort()
        self.queue.offer(step, [fused[having][order]])
        points = torch.cat([self.queue.of(0).to(fused), fused[having][order].detach()])
        if len(points) == 0:
            return None
        centres = spherical_k_means(points, self.clusters, seed=mix(step.seed, step.clock.step) % 2**31)
        if len(centres) < 2:
            return None

        labels = (fused.detach() @ centres.T).argmax(1)
        asked = torch.cat(list(vectors.values())) if self.each else fused[having]
        truth = torch.cat([labels[part] for part in rows.values()]) if self.each else labels[having]
        cosines = asked @ centres.T - self.margin * F.one_hot(truth, len(centres))
        loss = F.cross_entropy(cosines / self.temperature, truth)
        return {
            "loss": loss * step.share(self._count),
            "accuracy": (cosines.detach().argmax(1) == truth).to(loss.dtype).mean(),
        }

    def after_step(self, clock: Clock) -> None:
        """The queue moves."""
        self.queue.advance()

    def _fused(self, step: Step, vectors: dict[str, Tensor], rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """(B, d) unit vectors of the studies of all ranks, 0 for one without anything, and (B,) bool, which have something."""
        total = next(iter(vectors.values())).new_zeros(len(step.everyone.present), self.space.dim)
        for name, z in vectors.items():
            total = total.index_add(0, rows[name], z)
        return F.normalize(total, dim=1), self._used(step).any(1)

    def _used(self, step: Step) -> Tensor:
        columns = [step.model.modalities.index(name) for name in self.space.modalities]
        return step.everyone.present[:, columns]

    def _count(self, step: Step) -> Tensor:
        used = self._used(step)
        return used.sum() if self.each else used.any(1).sum()
