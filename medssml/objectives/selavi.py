"""SeLaVi: clusters of equal size, found from what all modalities of a study say together, which each learns to name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.losses import sinkhorn
from medssml.model import MultimodalModel
from medssml.objectives.base import chosen
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import Assignments, NamesClusters, enough, features_of
from medssml.spaces import ProjectionHead


class SeLaVi(NamesClusters):
    """loss = mean over heads h and modalities m of the mean over studies of  -log softmax(W_hm(x_m))_c(h)

        c(h) = argmax over k of  Sinkhorn(log p / epsilon),   log p = mean over the study's modalities of log softmax(W_hm(x_m))

    Before every epoch the training studies are divided among K labels of equal size, by optimal transport between the studies
    and the labels at the cost -log p; all modalities of a study share its label. Several heads, which begin differently, are
    several clusterings; a head goes on from epoch to epoch.

    [1] Asano et al., Labelling unlabelled videos from scratch with multi-modal self-supervision, NeurIPS 2020.

    Args:
        model: the model.
        modalities: of which; all by default.
        clusters: K. heads: H clusterings; 10 in the paper.
        epsilon: of the transport; 1 / 20 as in the paper. iterations: of it.
        weight: in the sum of objectives.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        clusters: int = 32,
        heads: int = 10,
        epsilon: float = 0.05,
        iterations: int = 100,
        weight: float | Ramp = 1.0,
    ) -> None:
        names = chosen(model, modalities, "SeLaVi")
        if heads < 1:
            raise ValueError(f"heads is {heads}; fix: 1 or more")
        asked = {f"{name}_{head}": (head, name) for head in range(heads) for name in names}
        super().__init__(
            model,
            asked=asked,
            heads={key: ProjectionHead(model.dim, enough(clusters)) for key in asked},
            assigned=Assignments(heads, clusters, balanced=False),
            weight=weight,
        )
        self.modalities, self.count = names, heads
        self.epsilon, self.iterations = epsilon, iterations

    @torch.no_grad()
    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Divides the studies among the labels, once for each head."""
        found = features_of(model, studies, self.modalities, "SeLaVi")
        if not found:
            return
        index = torch.cat([index for index, _ in found.values()]).unique()
        for head in range(self.count):
            codes = sinkhorn(self._log_p(head, index, found), epsilon=self.epsilon, iterations=self.iterations)
            self.assigned.assign(head, index, codes.argmax(1))

    def _log_p(self, head: int, index: Tensor, found: dict[str, tuple[Tensor, Tensor]]) -> Tensor:
        """(N, K) mean over the modalities that each study at index (N,) has."""
        total = next(self.parameters()).new_zeros(len(index), self.assigned.clusters)
        count = total.new_zeros(len(index), 1)
        for name, (having, features) in found.items():
            rows = torch.searchsorted(index, having)
            log_p = self.heads[f"{name}_{head}"](features).log_softmax(1)
            total = total.index_add(0, rows, log_p.to(total.dtype))
            count[rows] += 1
        return total / count
