"""What methods share that cluster all training studies before an epoch, and name the clusters through it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch
from medssml.losses import global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step


class Assignments(nn.Module):
    """Which cluster each training study belongs to, in each of several groups such as modalities; -1 for none.

    It is part of a run's state, and as long as the run has studies.

    Args:
        groups: G. clusters: K of each.
        balanced: each cluster weighs the same, however many studies it has; else each study does.
    """

    def __init__(self, groups: int, clusters: int, balanced: bool = True) -> None:
        super().__init__()
        self.clusters, self.balanced = clusters, balanced
        self.register_buffer("of_study", torch.full((groups, 0), -1))
        self.of_study: Tensor

    def assign(self, group: int, index: Tensor, labels: Tensor) -> None:
        """The studies at index (n,) int64 get the clusters labels (n,), all others of the group none."""
        studies = max(self.of_study.shape[1], int(index.max()) + 1 if len(index) else 0)
        longer = self.of_study.new_full((len(self.of_study), studies), -1)
        longer[:, : self.of_study.shape[1]] = self.of_study
        longer[group] = -1
        longer[group, index] = labels
        self.of_study = longer

    def of(self, group: int, index: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """(n,) cluster of each study at index (n,), -1 for none, and (n,) its weight: 0 for a study without one, and in the
        mean over the others 1."""
        every = self.of_study[group]
        known = (index >= 0) & (index < len(every))
        if len(every) == 0:
            return torch.full_like(index, -1), torch.zeros(len(index), dtype=dtype, device=index.device)
        labels = torch.where(known, every[index.clamp(0, len(every) - 1)], -1)
        if not self.balanced:
            return labels, (labels >= 0).to(dtype)
        here = every[every >= 0]
        sizes = torch.bincount(here, minlength=self.clusters)
        share = (len(here) / (sizes.clamp(min=1) * (sizes > 0).sum())).to(dtype)
        return labels, torch.where(labels >= 0, share[labels.clamp(min=0)], 0.0)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # As many studies as the run that was saved has.
        saved = state_dict.get(f"{prefix}of_study")
        if saved is not None and saved.shape != self.of_study.shape:
            self.of_study = self.of_study.new_full(saved.shape, -1)
        super()._load_from_state_dict(state_dict, prefix, *args)


def k_means(features: Tensor, clusters: int) -> Tensor:
    """(N,) int64 clusters of features (N, D), whitened by principal components and of unit length (Caron et al. 2018).

    The seed is drawn from torch's generator. Features that do not differ are one cluster. Clusters are numbered in the order of
    their first studies: which of them k-means begins with hangs on the last digits of the features.
    """
    from sklearn.cluster import KMeans

    x = features.double()
    x = x - x.mean(0)
    left, values, _ = torch.linalg.svd(x, full_matrices=False)
    kept = (values > 1e-6 * float(values.max())) & (values > 1e-12)
    if not bool(kept.any()):
        return torch.zeros(len(x), dtype=torch.int64, device=features.device)
    x = F.normalize(left[:, kept], dim=1)
    seed = int(torch.randint(0, 2**31 - 1, ()))
    found = KMeans(min(clusters, len(x)), n_init=3, random_state=seed).fit_predict(x.cpu().numpy())
    _, first, numbered = np.unique(found, return_index=True, return_inverse=True)
    return torch.from_numpy(first.argsort().argsort()[numbered]).to(features.device, torch.int64)


def spherical_k_means(vectors: Tensor, clusters: int, *, seed: int) -> Tensor:
    """(K, D) unit centres of unit vectors (n, D), K of them or as many as there are different vectors.

    On unit vectors Euclidean distance and cosine have the same order; the order of the vectors decides where it begins.
    """
    from sklearn.cluster import KMeans

    x = vectors.detach().double()
    count = min(clusters, len(x.unique(dim=0)))
    found = KMeans(count, n_init=1, random_state=seed).fit(x.cpu().numpy()).cluster_centers_
    return F.normalize(torch.from_numpy(found), dim=1).to(vectors)


class NamesClusters(Objective):
    """loss = mean over heads of the weighted mean over studies of  -log softmax(head(x_m))_c

    Each head names, from the pooled vector of a modality m, the cluster that the study has in a group until the next epoch.
    Who derives from it fills `assigned` in `begin_epoch`.

    Args:
        model: the model.
        asked: head -> (group, modality). heads: the same names -> module from D to K logits.
        assigned: the clusters.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        asked: Mapping[str, tuple[int, str]],
        heads: Mapping[str, nn.Module],
        assigned: Assignments,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        self.asked = dict(asked)
        self.heads = nn.ModuleDict(heads)
        self.assigned = assigned

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per head the share of studies whose cluster is named; None before the first epoch."""
        means, logged = [], {}
        for key, (_, modality) in self.asked.items():
            labels, weights = self._labels(step, key)
            total = right = weights.sum() * 0.0
            if modality in step.encoded:
                logits = self.heads[key](step.encoded[modality].pooled).to(weights.dtype)
                total = (F.cross_entropy(logits, labels.clamp(min=0), reduction="none") * weights).sum()
                right = ((logits.detach().argmax(1) == labels) * weights).sum()
            size = global_sum(weights.sum())
            means.append(global_sum(total) / size.clamp(min=1e-12))
            if size > 0:
                logged[f"accuracy_{key}"] = global_sum(right) / size
        if not logged:
            return None
        return {"loss": step.mean_of_means(torch.stack(means), self._counts), **logged}

    def _labels(self, step: Step, key: str) -> tuple[Tensor, Tensor]:
        """(n_m,) cluster of each study of this rank that has the head's modality, and (n_m,) its weight."""
        group, modality = self.asked[key]
        rows, index = step.batch.rows(modality), step.batch.index
        # One type on every rank, also on one without rows.
        dtype = torch.promote_types(next(self.heads.parameters()).dtype, torch.float32)
        return self.assigned.of(group, torch.full_like(rows, -1) if index is None else index[rows], dtype)

    def _counts(self, step: Step) -> Tensor:
        return global_sum(torch.stack([self._labels(step, key)[1].sum() for key in self.asked]))


def features_of(
    model: MultimodalModel, studies: Iterable[Batch], modalities: Sequence[str], owner: str
) -> dict[str, tuple[Tensor, Tensor]]:
    """Modality -> (n,) index and (n, D) pooled vectors of the studies that have it, by index; one that none has is left out.

    Raises:
        ValueError: batches that do not know which study is which.
    """
    found: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for batch in map(model.align, studies):
        if batch.index is None:
            raise ValueError(f"{owner} needs to know which study is which; fix: batches with `index`")
        for name, part in model.encode(batch).items():
            if name in modalities:
                found.setdefault(name, []).append((batch.index[batch.rows(name)], part.pooled))
    out = {}
    for name, parts in found.items():
        index, features = (torch.cat(values) for values in zip(*parts, strict=True))
        order = index.argsort()
        out[name] = index[order], features[order]
    return out


def enough(clusters: int) -> int:
    """The number itself.

    Raises:
        ValueError: fewer than two, of which the only one would be named without looking.
    """
    if clusters < 2:
        raise ValueError(f"clusters is {clusters}; fix: 2 or more")
    return clusters


def cluster_each(assigned: Assignments, modalities: Sequence[str], found: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """The group of each modality gets the clusters of its own features, from `features_of`."""
    for place, name in enumerate(modalities):
        if name in found:
            index, features = found[name]
            assigned.assign(place, index, k_means(features, assigned.clusters))


def begin_anew(heads: nn.ModuleDict) -> None:
    """Heads of one linear layer forget the names of the last clustering."""
    for head in heads.values():
        head.reset_parameters()  # type: ignore[operator]
