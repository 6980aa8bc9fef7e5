"""DeepCluster: each epoch the studies are clustered by their features, and the features learn to name the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import nn

from medssml.batch import Batch
from medssml.model import MultimodalModel
from medssml.objectives.base import chosen
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import Assignments, NamesClusters, begin_anew, cluster_each, enough, features_of


class DeepCluster(NamesClusters):
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
        names = chosen(model, modalities, "DeepCluster")
        super().__init__(
            model,
            asked={name: (place, name) for place, name in enumerate(names)},
            heads={name: nn.Linear(model.dim, enough(clusters)) for name in names},
            assigned=Assignments(len(names), clusters),
            weight=weight,
        )
        self.modalities = names

    @torch.no_grad()
    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Clusters the studies and starts the heads anew."""
        begin_anew(self.heads)
        cluster_each(self.assigned, self.modalities, features_of(model, studies, self.modalities, "DeepCluster"))
