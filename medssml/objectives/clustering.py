"""What methods that cluster share: k-means on features, and the cluster of each training study for one epoch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Assignments(nn.Module):
    """Which cluster each training study belongs to, in each of several groups such as modalities; -1 for none.

    It is part of a run's state, and as long as the run has studies.

    Args:
        groups: G. clusters: K of each.
    """

    def __init__(self, groups: int, clusters: int) -> None:
        super().__init__()
        self.clusters = clusters
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
        """(n,) cluster of each study at index (n,), -1 for none, and (n,) its weight: each cluster of the group weighs the
        same, a study without one nothing, and the mean weight over all studies is 1."""
        every = self.of_study[group]
        known = (index >= 0) & (index < len(every))
        if len(every) == 0:
            return torch.full_like(index, -1), torch.zeros(len(index), dtype=dtype, device=index.device)
        labels = torch.where(known, every[index.clamp(0, len(every) - 1)], -1)
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

    The seed is drawn from torch's generator. Features that do not differ are one cluster.
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
    return torch.from_numpy(found).to(features.device, torch.int64)
