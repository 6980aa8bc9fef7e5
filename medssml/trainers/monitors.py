"""What is watched besides the loss: does the embedding collapse, and is it of any use yet.

All of it looks at features (N, D) of the validation studies, which are never trained on.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medssml.statistics.metrics import auroc, macro_auroc, point

#: Fewer labelled studies than this in a class, and an AUROC says nothing.
LEAST_PER_CLASS = 5

#: A feature spread below this is a collapse: 1 is a perfectly spread embedding, 0 a constant one.
COLLAPSED = 0.02


def rankme(features: Tensor, eps: float = 1e-7) -> float:
    """Effective rank exp(H(p)), p_k = s_k / sum s + eps, of the singular values s of features (N, D).

    Between 1 and min(N, D). Garrido et al. 2023, eq. 1-2.
    """
    values = torch.linalg.svdvals(features.float())
    total = values.sum()
    if not total > 0:
        return 1.0
    p = values / total + eps
    return float(torch.exp(-(p * p.log()).sum()))


def feature_spread(features: Tensor) -> float:
    """Mean over dimensions of the standard deviation of the normalised features (N, D), times sqrt(D): 1 when spread
    evenly over the sphere, 0 when constant (Chen & He 2021, section 4.1)."""
    unit = F.normalize(features.float(), dim=1)
    return float(unit.std(dim=0, unbiased=False).mean() * unit.shape[1] ** 0.5)


def uniformity(features: Tensor, t: float = 2.0) -> float:
    """log mean exp(-t |x - y|^2) over the pairs of normalised features (N, D): 0 when constant, lower is more even.

    Wang & Isola 2020, eq. 5.
    """
    unit = F.normalize(features.float(), dim=1)
    return float(torch.pdist(unit).square().mul(-t).exp().mean().log())


def collapse_metrics(features: Tensor) -> dict[str, float]:
    """RankMe, spread and uniformity of features (N, D); empty for fewer than two studies."""
    if len(features) < 2:
        return {}
    return {
        "rankme": rankme(features),
        "feature_spread": feature_spread(features),
        "uniformity": uniformity(features),
    }


def ridge_probe(
    features: Tensor, targets: Tensor, groups: Tensor, *, folds: int = 5, penalty: float = 1.0
) -> float | None:
    """AUROC of a linear classifier on frozen features, cross-validated by subject: what a probe would reach.

    Ridge regression on the classes, in closed form, with standardised features; every study is scored by a classifier
    that has not seen its subject.

    Args:
        features: (N, D). targets: (N,) class index. groups: (N,) int64, equal for studies of one subject.
        folds: parts. penalty: ridge penalty per feature and study.

    Returns:
        AUROC (macro over one-versus-rest for more than two classes), or None where a class has too few studies.
    """
    classes, counts = torch.unique(targets, return_counts=True)
    if len(classes) < 2 or int(counts.min()) < LEAST_PER_CLASS:
        return None
    x = features.double()
    x = (x - x.mean(0)) / x.std(0, unbiased=False).clamp_min(1e-6)
    y = (targets[:, None] == classes[None, :]).double()
    fold = torch.unique(groups, return_inverse=True)[1] % folds

    scores = torch.zeros_like(y)
    for part in range(folds):
        held, rest = fold == part, fold != part
        if held.any() and rest.any():
            scores[held] = _ridge(x[rest], y[rest], penalty)(x[held])
    return class_auroc(targets.numpy(), scores.numpy(), classes.numpy())


def _ridge(x: Tensor, y: Tensor, penalty: float):  # type: ignore[no-untyped-def]
    centre, level = x.mean(0), y.mean(0)
    x = x - centre
    # The dual form: there are as a rule fewer studies than would make D x D the smaller system.
    gram = x @ x.T + penalty * x.shape[1] * torch.eye(len(x), dtype=x.dtype)
    weights = x.T @ torch.linalg.solve(gram, y - level)
    return lambda new: (new - centre) @ weights + level


def class_auroc(targets: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> float:
    """AUROC of scores (N, K) whose columns are `classes`; for two classes that of the second."""
    index = np.searchsorted(classes, targets).astype(float)
    value = point(auroc, index, scores[:, 1]) if len(classes) == 2 else point(macro_auroc, index, scores)
    return float(value)


def probe_metrics(features: Tensor, targets: Mapping[str, Tensor], groups: Tensor) -> dict[str, float]:
    """ "probe_auroc/TASK" for every task whose targets are classes and has enough labels among these studies."""
    metrics: dict[str, float] = {}
    for task, values in targets.items():
        labelled = torch.isfinite(values)
        known = values[labelled]
        if len(known) == 0 or not bool((known == known.round()).all()) or len(known.unique()) > 20:
            continue
        value = ridge_probe(features[labelled], known.long(), groups[labelled])
        if value is not None:
            metrics[f"probe_auroc/{task}"] = value
    return metrics
