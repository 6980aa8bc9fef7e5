"""Imputation from a prior: in the place of what is absent, a mixture of what training studies typically have there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Encoded, Fused
from medssml.fusion.base import Fusion, OwnLinear
from medssml.fusion.imputation import Imputation, fused_with
from medssml.layers import masked_softmax


class PriorImputation(Imputation):
    """h = r * fusion(x_m where m is present, sum over k of w_mk c_mk where not)                       (SMIL, Ma et al. 2021)

    c_m1, ..., c_mK are k-means centres of the vectors of m in training studies, the prior; they are fitted again before each
    epoch, from where they were, so that a weight keeps its meaning. An auxiliary network says the weights from what is present,
    w_m = softmax(A_m gelu(mean over present n of B_n x_n + b_n)), and with `believe` another one how much of each feature of the
    fused vector is believed, r = softplus(R h' + b), 1 at first: the feature regularisation of the paper, which from few studies
    learns these by heart, and so is left out by default, r = 1. In training weights and r get noise.

    The paper fills in one modality for the other, and its weights are normal with mean 1; here whatever is absent is filled in
    from whatever is there, study by study, and weights sum to 1, so that what stands in is never outside of what training studies
    had. The spread of the noise is an argument: learned without a prior of its own it falls to 0. An answer is that of the mean
    weights, where the paper takes the mean of 30 draws. A study without anything stays so, as does a modality that no training
    study had, and before the first fit nothing is filled in. The objective `SMIL` is what the auxiliary networks are learned by
    in the paper; labels alone teach them, too. It finds the mixtures, (B, M, D), in `Fused.extra["expected"]`.

    The centres are saved with the model; one may be the vector of a single unusual training study.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
        fusion: of vectors, over the same modalities; in a config it need not repeat modalities and dim.
        centres: K of each modality; 10 in the paper. noise: standard deviation of weights and of r, in training.
        believe: whether r is learned.

    Raises:
        ValueError: a fusion of tokens, no centre, or a negative noise.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        dim: int,
        fusion: Fusion,
        *,
        centres: int = 10,
        noise: float = 0.05,
        believe: bool = False,
    ) -> None:
        super().__init__(modalities, dim, fusion)
        if centres < 1 or not noise >= 0:
            raise ValueError(f"centres {centres}, noise {noise}; fix: at least one centre, and noise of 0 or more")
        count = len(self.modalities)
        self.noise, self.keeps = noise, (*fusion.keeps, "expected")
        self.present = OwnLinear(count, dim, dim)
        self.weights = nn.Linear(dim, count * centres)
        self.believed = nn.Linear(dim, dim) if believe else None
        if self.believed is not None:
            nn.init.zeros_(self.believed.weight)
            nn.init.constant_(self.believed.bias, math.log(math.e - 1))
        self.register_buffer("centres", torch.zeros(count, centres, dim))
        self.register_buffer("known", torch.zeros(count, centres, dtype=torch.bool))
        self.centres: Tensor
        self.known: Tensor

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """What the fusion inside gives, its features as far as they are believed; see `Fusion.forward`."""
        table = self.table(encoded, present)
        expected, filled = self.expected(table, present), self._to_fill(present)
        given = torch.where(filled.unsqueeze(-1), expected, table)

        fused = fused_with(self.fusion, encoded, present, given, filled)
        ones = torch.ones_like(fused.pooled)
        believed = self._noisy(ones if self.believed is None else F.softplus(self.believed(fused.pooled)))
        return fused._replace(pooled=fused.pooled * believed, extra={**fused.extra, "expected": expected})

    def fit(self, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> None:
        """See `Fusion.fit`."""
        table, present = self.table_of(studies)
        for column in range(len(self.modalities)):
            vectors = table[present[:, column], column]
            if len(vectors):
                found = k_means_from(vectors, self.centres[column][self.known[column]], self.centres.shape[1])
                self.known[column] = torch.arange(self.centres.shape[1], device=found.device) < len(found)
                self.centres[column, : len(found)] = found

    def filled(self, table: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Imputation.filled`."""
        filled = self._to_fill(present)
        return torch.where(filled.unsqueeze(-1), self.expected(table, present), table), filled

    def _to_fill(self, present: Tensor) -> Tensor:
        """(B, M) bool: nothing before the first fit, nor for a study without anything."""
        return ~present & present.any(1, keepdim=True) & self.known.any(1)

    def expected(self, table: Tensor, present: Tensor) -> Tensor:
        """(B, M, D) mixtures of the centres of every modality, said by what is present.

        Args:
            table: (B, M, D) vectors, anything finite where absent. present: (B, M) bool.
        """
        own = torch.where(present.unsqueeze(-1), self.present(table), 0.0)
        seen = F.gelu(own.sum(1) / present.sum(1, keepdim=True).clamp(min=1))
        scores = self.weights(seen).unflatten(1, self.known.shape)
        weights = self._noisy(masked_softmax(scores, self.known))
        return torch.einsum("bmk,mkd->bmd", weights.to(self.centres.dtype), self.centres).to(table.dtype)

    def _noisy(self, values: Tensor) -> Tensor:
        return values + self.noise * torch.randn_like(values) if self.training and self.noise > 0 else values


def k_means_from(vectors: Tensor, begin: Tensor, count: int) -> Tensor:
    """(K, D) centres of vectors (n, D): `count`, or as many as there are different vectors.

    Args:
        begin: (k, D) earlier centres, from which they move on where there are as many; without them they begin by k-means++.
    """
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    x = vectors.detach().double().cpu()
    count = min(count, len(x.unique(dim=0)))
    again = len(begin) == count
    settings = {"init": begin.double().cpu().numpy(), "n_init": 1} if again else {"n_init": 3, "random_state": 0}
    # One thread: several add up in the order in which they end, and a run that goes on would not have the same bits.
    with threadpool_limits(limits=1):
        found = KMeans(count, **settings).fit(x.numpy()).cluster_centers_
    return torch.from_numpy(found).to(vectors)
