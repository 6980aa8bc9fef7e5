"""Imputation by regression: in the place of what is absent, what the rest of the study lets one expect of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from medssml.batch import Encoded
from medssml.fusion.base import Fusion
from medssml.fusion.imputation import Imputation

#: Rounds of expectation and maximisation.
ROUNDS = 8


class RegressionImputation(Imputation):
    """h = fusion(x_m where m is present, E[x_m given what is present] where not)

    The expectation is that of a normal distribution of all vectors of a study, mu_a + S_ap S_pp^-1 (x_p - mu_p): a linear
    regression of each modality on every combination of the others. Mean and covariance are fitted to the training studies
    before each epoch by expectation and maximisation, which uses every study with what it has and is right where absence
    depends on what is seen (Little and Rubin 1987); they are saved with the model. A study without anything stays so, and before
    the first fit nothing is filled in.

    Args:
        modalities: names, in the order of the columns of `present`.
        dim: D.
        fusion: of vectors, over the same modalities; in a config it need not repeat modalities and dim.
        shrinkage: share of the mean variance that is added to each variance, so that few studies do not fit noise.

    Raises:
        ValueError: a fusion of tokens, or no shrinkage above 0.
    """

    def __init__(self, modalities: Sequence[str], dim: int, fusion: Fusion, *, shrinkage: float = 0.1) -> None:
        super().__init__(modalities, dim, fusion)
        if not shrinkage > 0:
            raise ValueError(f"shrinkage is {shrinkage}; fix: a positive share")
        self.shrinkage = shrinkage
        size = len(self.modalities) * dim
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("covariance", torch.zeros(size, size))
        self.register_buffer("studies", torch.zeros((), dtype=torch.int64))
        self.mean: Tensor
        self.covariance: Tensor
        self.studies: Tensor

    def fit(self, studies: Iterable[tuple[dict[str, Encoded], Tensor]]) -> None:
        """See `Fusion.fit`."""
        table, present = self.table_of(studies)
        if len(table) < 2:
            return
        mean, covariance = fitted_normal(table.double(), present, self.shrinkage)
        self.mean.copy_(mean)
        self.covariance.copy_(covariance)
        self.studies.fill_(len(table))

    def filled(self, table: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """See `Imputation.filled`; nothing before the first fit, nor for a study without anything."""
        if int(self.studies) == 0:
            return table, torch.zeros_like(present)
        return expected(table, present, self.mean, self.covariance), ~present & present.any(1, keepdim=True)


def expected(table: Tensor, present: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """(B, M, D) the table with the conditional mean where a modality is absent; the mean for a study without anything.

    Args:
        table: (B, M, D), anything where absent. present: (B, M) bool. mean: (M D). covariance: (M D, M D), positive definite.
    """
    out = table.flatten(1)
    for rows, seen in _patterns(present, table.shape[2]):
        weights = _regression(covariance, seen)
        guess = mean[~seen] + (out[rows][:, seen] - mean[seen]) @ weights
        at = (rows[:, None], (~seen).nonzero().squeeze(1)[None])
        out = out.index_put(at, guess.to(out.dtype))
    return out.reshape(table.shape)


def fitted_normal(table: Tensor, present: Tensor, shrinkage: float, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Mean (M D) and covariance (M D, M D) of the vectors (N, M, D) of studies that have what is present (N, M).

    Args:
        shrinkage: share of the mean variance that is added to each variance.
        rounds: of expectation and maximisation.
    """
    x, known = table.flatten(1), present.repeat_interleave(table.shape[2], dim=1)
    count = known.sum(0).clamp(min=1)
    mean = torch.where(known, x, 0.0).sum(0) / count
    variance = torch.where(known, (x - mean).square(), 0.0).sum(0) / count
    ridge = shrinkage * variance.mean().clamp(min=1e-12) * torch.eye(len(mean), dtype=x.dtype, device=x.device)
    covariance = torch.diag(variance) + ridge
    for _ in range(rounds):
        # Expectation: what is absent, and how much of its variance the rest of the study leaves open.
        filled = expected(table, present, mean, covariance).flatten(1)
        left = torch.zeros_like(covariance)
        for rows, seen in _patterns(present, table.shape[2]):
            unseen = (~seen).nonzero().squeeze(1)
            explained = covariance[~seen][:, seen] @ _regression(covariance, seen)
            left[unseen[:, None], unseen] += len(rows) * (covariance[~seen][:, ~seen] - explained)
        # Maximisation.
        mean = filled.mean(0)
        centred = filled - mean
        covariance = (centred.T @ centred + left) / len(x) + ridge
    return mean, covariance


def _patterns(present: Tensor, dim: int) -> Iterator[tuple[Tensor, Tensor]]:
    """(rows, which of the M D numbers they have) for each pattern in which something is absent."""
    patterns, which = present.unique(dim=0, return_inverse=True)
    for place, pattern in enumerate(patterns):
        if not bool(pattern.all()):
            yield (which == place).nonzero().squeeze(1), pattern.repeat_interleave(dim)


def _regression(covariance: Tensor, seen: Tensor) -> Tensor:
    """(S, U) weights of the numbers that are seen for those that are not: S_pp^-1 S_pa."""
    return torch.linalg.solve(covariance[seen][:, seen], covariance[seen][:, ~seen])
