"""DeepCluster: each epoch the studies are clustered by their features, and the features learn to name the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Clock, Ramp
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
        self.modalities, self.clusters = chosen(model, modalities, "DeepCluster"), clusters
        self.heads = nn.ModuleDict({name: nn.Linear(model.dim, clusters) for name in self.modalities})
        # (modalities, studies) int64, -1 where a study has no such modality; as long as there are training studies.
        self.register_buffer("assigned", torch.full((len(self.modalities), 0), -1))
        self.assigned: Tensor

    @torch.no_grad()
    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Clusters the studies and starts the heads anew."""
        found: dict[str, list[tuple[Tensor, Tensor]]] = {name: [] for name in self.modalities}
        longest = 0
        for batch in map(model.align, studies):
            if batch.index is None:
                raise ValueError("DeepCluster needs to know which study is which; fix: batches with `index`")
            longest = max(longest, int(batch.index.max()) + 1)
            for name, part in model.encode(batch).items():
                if name in found:
                    found[name].append((batch.index[batch.rows(name)], part.pooled))
        self.assigned = self.assigned.new_full((len(self.modalities), longest), -1)
        for place, name in enumerate(self.modalities):
            self.heads[name].reset_parameters()  # type: ignore[operator]
            if found[name]:
                index = torch.cat([index for index, _ in found[name]])
                order = index.argsort()
                features = torch.cat([pooled for _, pooled in found[name]])[order]
                self.assigned[place, index[order]] = cluster(features, self.clusters)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose cluster is named; None before the first epoch."""
        means, logged = [], {}
        for place, name in enumerate(self.modalities):
            labels, weights = self._labels(step, place)
            total, right = weights.sum() * 0.0, weights.sum() * 0.0
            if len(labels) and name in step.encoded:
                logits = self.heads[name](step.encoded[name].pooled)
                logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
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
        """(n_m,) cluster of each study of this rank that has the modality, and its weight, 0 where it has no cluster."""
        rows = step.batch.rows(self.modalities[place])
        index = step.batch.index
        # One type on every rank, also on one without rows.
        dtype = torch.promote_types(next(self.heads.parameters()).dtype, torch.float32)
        if index is None or self.assigned.shape[1] == 0:
            return rows[:0], rows.new_zeros(0, dtype=dtype)
        at = index[rows]
        known = (at >= 0) & (at < self.assigned.shape[1])
        labels = torch.where(known, self.assigned[place, at.clamp(0, self.assigned.shape[1] - 1)], -1)
        every = self.assigned[place][self.assigned[place] >= 0]
        sizes = torch.bincount(every, minlength=self.clusters).clamp(min=1)
        share = len(every) / (sizes * len(torch.unique(every))).to(dtype)
        return labels, torch.where(labels >= 0, share[labels.clamp(min=0)], 0.0)

    def _counts(self, step: Step) -> Tensor:
        return global_sum(torch.stack([self._labels(step, place)[1].sum() for place in range(len(self.modalities))]))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # As many studies as the run that was saved has.
        saved = state_dict.get(f"{prefix}assigned")
        if saved is not None and saved.shape != self.assigned.shape:
            self.assigned = self.assigned.new_full(saved.shape, -1)
        super()._load_from_state_dict(state_dict, prefix, *args)


def cluster(features: Tensor, clusters: int) -> Tensor:
    """(N,) int64 k-means clusters of features (N, D), whitened by principal components and of unit length."""
    from sklearn.cluster import KMeans

    x = features.double()
    x = x - x.mean(0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    kept = values > 1e-6 * float(values.max())
    kept &= values > 1e-12
    if not bool(kept.any()):
        return torch.zeros(len(x), dtype=torch.int64, device=features.device)
    x = F.normalize(left[:, kept], dim=1)
    seed = int(torch.randint(0, 2**31 - 1, ()))
    found = KMeans(min(clusters, len(x)), n_init=3, random_state=seed).fit_predict(x.cpu().numpy())
    return torch.from_numpy(found).to(features.device, torch.int64)
