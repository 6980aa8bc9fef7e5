"""XDC: each epoch the studies are clustered by one modality, and the others learn to name the cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import permutations

import torch
from torch import nn

from medssml.batch import Batch
from medssml.model import MultimodalModel
from medssml.objectives.base import chosen
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.clustering import Assignments, NamesClusters, begin_anew, cluster_each, enough, features_of


class XDC(NamesClusters):
    """loss = mean over ordered pairs (a, b) of modalities of the mean over studies with both of  -log softmax(W_ab x_b)_c(a)

    c(a) is the study's cluster among all training studies that have a, by k-means before every epoch as in `DeepCluster`;
    W_ab begins anew with it. What a can tell apart b learns to see, and the reverse; a pair of modalities that no study has
    is left out of the mean.

    [1] Alwassel et al., Self-supervised learning by cross-modal audio-video clustering, NeurIPS 2020 (the variant XDC).

    Args:
        model: the model.
        modalities: of which; all by default.
        clusters: K of each modality; 64 to 512 in the paper, for millions of clips.
        weight: in the sum of objectives.

    Raises:
        ValueError: fewer than two modalities or clusters.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        clusters: int = 32,
        weight: float | Ramp = 1.0,
    ) -> None:
        names = chosen(model, modalities, "XDC")
        if len(names) < 2:
            raise ValueError(f"XDC needs two modalities; it has {list(names)}")
        pairs = {f"{a}_to_{b}": (names.index(a), b) for a, b in permutations(names, 2)}
        heads = {key: nn.Linear(model.dim, enough(clusters)) for key in pairs}
        super().__init__(model, asked=pairs, heads=heads, assigned=Assignments(len(names), clusters), weight=weight)
        self.modalities = names

    @torch.no_grad()
    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Clusters the studies by each modality and starts the heads anew."""
        begin_anew(self.heads)
        cluster_each(self.assigned, self.modalities, features_of(model, studies, self.modalities, "XDC"))
