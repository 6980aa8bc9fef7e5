"""Weights under which what is absent says nothing of the label; and what happens without them when absence turns round."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from medssml.batch import Batch
from medssml.config import load_config
from medssml.evaluation.encoded_studies import encode_studies
from medssml.fusion import ConcatFusion, FactorFusion
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel, Task
from medssml.objectives import Step, Supervised
from medssml.runs.finetuning import study_weights
from medssml.runs.presence_weights import (
    MOST,
    by_modality,
    independent_of_presence,
    label_weights_by_presence,
    presence_weights,
)
from medssml.runs.training_config import FinetuneConfig, Finetuning
from medssml.shipped_configs import config_path
from medssml.trainers.finetune import finetuner
from medssml.trainers.optim import optimiser, parameter_groups
from medssml.trainers.probe_first import fit_heads
from tests.objectives.vectors import vector_batch, vector_model

NAMES = ("a", "b", "c")
#: Chance of each modality's being absent, of the two classes: of training, and the other way round.
ABSENT = np.array([[0.8, 0.2, 0.5], [0.2, 0.8, 0.5]])


def drawn(count: int, seed: int, absent: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Labels (N,), vectors (N, M, D) of which each modality shows the label a little, and presence (N, M)."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 2, count)
    vectors = rng.normal(size=(count, 3, 4))
    vectors[:, :, 0] += 1.2 * (y - 0.5)[:, None]
    present = rng.random((count, 3)) >= absent[y]
    return torch.tensor(y).float(), torch.tensor(vectors).float(), torch.tensor(present)


def test_are_the_ratio_of_the_shares_with_one_study_of_each_kind_more() -> None:
    present = np.array([[1, 1], [1, 0], [0, 1], [1, 1], [0, 0]], dtype=bool)
    y = np.array([1.0, 1.0, 0.0, 0.0, np.nan])
    share, of_one, of_none = np.array([4, 4]) / 6, np.array([3, 2]) / 4, np.array([2, 3]) / 4
    raw = [
        share[0] / of_one[0] * share[1] / of_one[1],
        share[0] / of_one[0] * (1 - share[1]) / (1 - of_one[1]),
        (1 - share[0]) / (1 - of_none[0]) * share[1] / of_none[1],
        share[0] / of_none[0] * share[1] / of_none[1],
    ]
    found = independent_of_presence(present, y)
    np.testing.assert_allclose(found, [*np.array(raw) / np.mean(raw), 1.0])


def test_the_weighted_label_is_as_frequent_with_each_modality_as_without() -> None:
    y, _, present = (part.numpy() for part in drawn(20_000, 0, ABSENT))
    weight = independent_of_presence(present, y.astype(float))
    assert weight.min() >= 1 / MOST / 2 and weight.max() <= 2 * MOST and weight.mean() == pytest.approx(1)
    for pattern in np.unique(present, axis=0):
        rows = (present == pattern).all(1)
        assert abs(np.average(y[rows], weights=weight[rows]) - 0.5) < 0.06
        assert pattern[0] == pattern[1] or abs(y[rows].mean() - 0.5) > 0.3


@pytest.mark.parametrize("absent", [ABSENT, np.array([[0.9, 0.8, 0.8], [0.1, 0.1, 0.1]])])
def test_factors_of_a_subset_make_classes_as_frequent_as_they_are_whatever_else_a_study_has(absent: np.ndarray) -> None:
    """Even where a pattern all but tells the label, and weights of whole patterns reach their bound."""
    y, _, present = (part.numpy() for part in drawn(40_000, 0, absent))
    factors = by_modality(present, y.astype(float))
    for subset in ([0], [1], [0, 1], [0, 2], [0, 1, 2]):
        rows = present[:, subset].all(1)
        weight = factors[rows][:, subset].prod(1)
        assert abs(np.average(y[rows], weights=weight) - y.mean()) < 0.08, subset
        if len(subset) == 1:
            assert abs(np.average(y[rows], weights=weight) - y.mean()) < 0.02
    assert (by_modality(present, np.full(40_000, np.nan)) == 1).all()


def test_where_absence_is_at_random_and_without_labels_nothing_is_weighed() -> None:
    y, _, present = (part.numpy() for part in drawn(20_000, 0, np.full((2, 3), 0.4)))
    np.testing.assert_allclose(independent_of_presence(present, y.astype(float)), 1, atol=0.06)
    assert (independent_of_presence(present, np.full(20_000, np.nan)) == 1).all()


def learned(weighted: bool, dropout: float) -> tuple[MultimodalModel, Batch]:
    """A model that is told what is absent (concatenation with learned vectors in its place), after 200 steps."""
    torch.manual_seed(0)
    y, vectors, present = drawn(1000, 1, ABSENT)
    batch = vector_batch({n: vectors[:, c] for c, n in enumerate(NAMES)}, present, {"y": y})
    model = vector_model(NAMES, 4, lambda names, dim: ConcatFusion(names, dim), {"y": Task()})
    weights = independent_of_presence(present.numpy(), y.double().numpy()).tolist() if weighted else None
    labels = Supervised(model, modality_dropout=dropout, study_weights={"y": weights} if weights else None)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for epoch in range(200):
        optimiser.zero_grad()
        found = labels(Step(model, replace(batch, key=batch.key + 100_000 * epoch)))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
    return model.eval(), batch


def answered(model: MultimodalModel, absent: np.ndarray) -> float:
    y, vectors, present = drawn(2000, 2, absent)
    with torch.no_grad():
        logits = model(vector_batch({n: vectors[:, c] for c, n in enumerate(NAMES)}, present))["y"]
    return float(roc_auc_score(y.numpy(), logits.numpy()))


def test_when_absence_turns_round_what_was_told_by_it_collapses_and_the_weighted_does_not() -> None:
    """The protocol of MultiModN: absence depends on the label in training, and the other way round at test."""
    naive, weighted = learned(False, 0.3)[0], learned(True, 0.3)[0]
    assert answered(naive, ABSENT) > 0.85 and answered(naive, ABSENT[::-1]) < 0.5
    assert answered(weighted, ABSENT[::-1]) > 0.68
    assert abs(answered(weighted, ABSENT) - answered(weighted, ABSENT[::-1])) < 0.1


def by_default(seed: int) -> MultimodalModel:
    """The default of a fine-tuning on these vectors: a stack of probes in a new fusion, both weighed, and 100 small steps."""
    settings = load_config(config_path("default", "finetune"), FinetuneConfig)
    assert settings.probe_first and settings.presence_weights and settings.fusion is not None
    torch.manual_seed(seed)
    y, vectors, present = drawn(1000, 10 + seed, ABSENT)
    batch = vector_batch({n: vectors[:, c] for c, n in enumerate(NAMES)}, present, {"y": y})
    model = vector_model(NAMES, 4, lambda names, dim: FactorFusion(names, dim), {"y": Task()})
    studies = encode_studies(model, [batch])
    weights = label_weights_by_presence(studies.study_id, NAMES, present.numpy(), y.double().numpy())
    fit_heads(model, ["y"], studies, seed, {"y": weights})
    counts = {"y": weights.of_whole(studies.study_id).tolist()}
    labels = Supervised(model, modality_dropout=0.3, unimodal_weight=0.5, study_weights=counts)
    optim = replace(settings.optim, scales={k: v for k, v in settings.optim.scales.items() if k != "encoders"})
    learner = finetuner(model, labels, optim, seed=seed).train()
    model.standardise.eval()
    steps = optimiser(parameter_groups(learner, optim), optim)
    for epoch in range(100):
        steps.zero_grad()
        found = labels(Step(model, replace(batch, key=batch.key + 100_000 * epoch)))
        assert found is not None
        found["loss"].backward()
        steps.step()
    return model.eval()


def test_the_default_is_as_good_whichever_way_round_absence_is() -> None:
    model = by_default(0)
    same, turned = answered(model, ABSENT), answered(model, ABSENT[::-1])
    assert min(same, turned) > 0.8 and abs(same - turned) < 0.04


def test_a_config_multiplies_them_with_the_weights_of_the_table(cohort: Path) -> None:
    table = Manifest.read(cohort)
    task = next(name for name, label in table.tasks.items() if label.kind == "binary")
    config = Finetuning(tasks=[task], presence_weights=True)
    alone = study_weights(config, table)
    train = table.split("train")
    np.testing.assert_allclose(alone[task], independent_of_presence(train.present, train.targets[task]))
    assert study_weights(replace(config, presence_weights=False), table) == {}
    halved = replace(table, table=table.table.assign(**{f"weight_{task}": "0.5"}))
    np.testing.assert_allclose(study_weights(config, halved)[task], np.array(alone[task]) / 2)
    assert presence_weights(table, [task]) == alone
