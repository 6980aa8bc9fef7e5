"""DeepCluster: each epoch the studies are clustered by their features, and the features learn to name the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import Assignments, k_means
from medssml.objectives.step import Step


class DeepCluster(Objective):
    """loss = mean over modalities of the mean over studies of  -log softmax(W_m x_m)_c, each cluster c weighing the same

    Before every epoch the pooled vectors of all training studies, of each modality by itself, are whitened, normalised and
    clustered by k-means; the cluster of a study is its label for this epoch, and W begins anew. The weights stand for the
    paper's sampling, which shows every cluster equally often.

    [1] Caron, Bojanowski, Joulin, Douze, Deep clustering for unsupervised learning of visual features, ECCV 2018.

    Args:
        model: the model.
        modalities: of which; all by default.
        clusters: K of each; about ten times the number of kinds expected, as the paper finds.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        clusters: int = 32,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if clusters < 2:
            raise ValueError(f"clusters is {clusters}; fix: 2 or more")
        self.modalities = chosen(model, modalities, "DeepCluster")
        self.heads = nn.ModuleDict({name: nn.Linear(model.dim, clusters) for name in self.modalities})
        self.assigned = Assignments(len(self.modalities), clusters)

    @torch.no_grad()
    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Clusters the studies and starts the heads anew."""
        found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.modalities}
        for batch in map(model.align, studies):
            if batch.index is None:
                raise ValueError("DeepCluster needs to know which study is which; fix: batches with `index`")
            for name, part in model.encode(batch).items():
                if name in found:
                    found[name].append((batch.index[batch.rows(name)], part.pooled))
        for place, name in enumerate(self.modalities):
            cast(nn.Linear, self.heads[name]).reset_parameters()
            if found[name]:
                index, features = (torch.cat(parts) for parts in zip(*found[name], strict=True))
                order = index.argsort()
                self.assigned.assign(place, index[order], k_means(features[order], self.assigned.clusters))

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose cluster is named; None before the first epoch."""
        means, logged = [], {}
        for place, name in enumerate(self.modalities):
            labels, weights = self._labels(step, place)
            total = right = weights.sum() * 0.0
            if name in step.encoded:
                logits = self.heads[name](step.encoded[name].pooled).to(weights.dtype)
                total = (F.cross_entropy(logits, labels.clamp(min=0), reduction="none") * weights).sum()
                right = ((logits.detach().argmax(1) == labels) * weights).sum()
            size = global_sum(weights.sum())
            means.append(global_sum(total) / size.clamp(min=1e-12))
            if size > 0:
                logged[f"accuracy_{name}"] = global_sum(right) / size
        if not logged:
            return None
        return {"loss": step.mean_of_means(torch.stack(means), self._counts), **logged}

    def _labels(self, step: Step, place: int) -> tuple[Tensor, Tensor]:
        """(n_m,) cluster of each study of this rank that has the modality, and (n_m,) its weight."""
        rows, index = step.batch.rows(self.modalities[place]), step.batch.index
        # One type on every rank, also on one without rows.
        dtype = torch.promote_types(next(self.heads.parameters()).dtype, torch.float32)
        return self.assigned.of(place, torch.full_like(rows, -1) if index is None else index[rows], dtype)

    def _counts(self, step: Step) -> Tensor:
        return global_sum(torch.stack([self._labels(step, place)[1].sum() for place in range(len(self.modalities))]))
