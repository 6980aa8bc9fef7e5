"""What is filled in: against a second implementation, against the mean on held-out studies, and who never enters."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from medssml.batch import Encoded
from medssml.config import build
from medssml.fusion import (
    AdditiveFusion,
    ConcatFusion,
    CrossModalAttention,
    Fusion,
    MaskedAttention,
    RegressionImputation,
    RetrievalImputation,
)
from medssml.fusion.regression_imputation import expected, fitted_normal
from medssml.model import MultimodalModel, Task
from medssml.objectives import Supervised
from medssml.trainers.learner import Learner
from medssml.trainers.settings import Optim
from tests.objectives.vectors import vector_batch, vector_model

NAMES = ("a", "b", "c")
DIM = 4


def given(table: Tensor, present: Tensor) -> dict[str, Encoded]:
    """What a fusion is given of vectors (N, M, D)."""
    out = {}
    for column, name in enumerate(NAMES):
        vectors = table[present[:, column], column]
        if len(vectors):
            out[name] = Encoded(vectors[:, None], torch.ones(len(vectors), 1, dtype=torch.bool), vectors)
    return out


def related(count: int, seed: int, rate: float = 0.4) -> tuple[Tensor, Tensor]:
    """Vectors (N, M, D) that show two causes, each in its own way and with noise; and presence (N, M), one at least."""
    g = torch.Generator().manual_seed(99)
    ways = torch.randn(2, 3 * DIM, generator=g)
    g = torch.Generator().manual_seed(seed)
    table = torch.randn(count, 2, generator=g) @ ways + 0.4 * torch.randn(count, 3 * DIM, generator=g) + 3.0
    present = torch.rand(count, 3, generator=g) >= rate
    present[~present.any(1), 0] = True
    return table.reshape(count, 3, DIM), present


def regression() -> RegressionImputation:
    return RegressionImputation(NAMES, DIM, ConcatFusion(NAMES, DIM), shrinkage=0.01).eval()


def retrieval() -> RetrievalImputation:
    return RetrievalImputation(NAMES, DIM, ConcatFusion(NAMES, DIM), neighbours=5, memory=300).eval()


def filled_in(fusion: Fusion, table: Tensor, present: Tensor) -> Tensor:
    """(N, M, D) the vectors that the fusion inside is given, NaN where it is given none."""
    seen: list[tuple[dict[str, Encoded], Tensor]] = []
    handle = fusion.fusion.register_forward_pre_hook(lambda _, args: seen.append(args))  # type: ignore[union-attr, operator]
    with torch.no_grad():
        fusion(given(table, present), present)
    handle.remove()  # type: ignore[union-attr]
    encoded, there = seen[0]
    out = torch.full_like(table, torch.nan)
    for column, name in enumerate(NAMES):
        if name in encoded:
            out[there[:, column], column] = encoded[name].pooled
    return out


@pytest.mark.parametrize("make", [regression, retrieval])
def test_beats_the_mean_on_studies_that_it_has_not_seen(make) -> None:  # type: ignore[no-untyped-def]
    fusion = make()
    fusion.fit([(given(*related(200, 1)), related(200, 1)[1]), (given(*related(100, 2)), related(100, 2)[1])])
    table, present = related(200, 3)
    hidden = ~present
    found = filled_in(fusion, table, present)
    assert torch.equal(found[present], table[present])
    train, there = related(300, 1)
    mean = torch.stack([train[there[:, column], column].mean(0) for column in range(3)]).expand_as(table)
    error, of_the_mean = ((guess - table)[hidden].square().mean() for guess in (found, mean))
    assert error < 0.4 * of_the_mean


def test_the_regression_is_least_squares_where_all_training_studies_are_complete() -> None:
    table, _ = related(400, 1)
    mean, covariance = fitted_normal(table.double(), torch.ones(400, 3, dtype=torch.bool), 1e-9)
    asked, _ = related(5, 7)
    found = expected(asked.double(), torch.tensor([[True, False, True]]).expand(5, 3), mean, covariance)[:, 1]
    x = np.hstack([np.ones((400, 1)), table[:, 0].double().numpy(), table[:, 2].double().numpy()])
    weights = np.linalg.lstsq(x, table[:, 1].double().numpy(), rcond=None)[0]
    new = np.hstack([np.ones((5, 1)), asked[:, 0].double().numpy(), asked[:, 2].double().numpy()])
    np.testing.assert_allclose(found.numpy(), new @ weights, rtol=1e-4, atol=1e-4)


def test_expectation_and_maximisation_is_right_where_absence_depends_on_what_is_seen() -> None:
    """b is absent where a is large: the mean of those who have it is wrong, and the fitted one is not."""
    g = torch.Generator().manual_seed(0)
    a = torch.randn(4000, 1, 1, generator=g, dtype=torch.float64)
    b = 2 * a + 0.5 * torch.randn(4000, 1, 1, generator=g, dtype=torch.float64)
    present = torch.cat([torch.ones(4000, 1, dtype=torch.bool), a[:, 0] < 0.5], dim=1)
    mean, covariance = fitted_normal(torch.cat([a, b], dim=1), present, 1e-6, rounds=50)
    assert float(b[present[:, 1]].mean()) < -0.8
    torch.testing.assert_close(mean, torch.zeros(2, dtype=torch.float64), atol=0.08, rtol=0)
    torch.testing.assert_close(covariance, torch.tensor([[1.0, 2.0], [2.0, 4.25]]).double(), atol=0.2, rtol=0)


def test_retrieval_is_the_weighted_mean_of_the_nearest_in_a_loop() -> None:
    fusion = retrieval()
    train, there = related(60, 1)
    fusion.fit([(given(train, there), there)])
    table, present = related(12, 5)
    found = filled_in(fusion, table, present)
    spread = [float(train[there[:, c], c].var(0).mean().sqrt()) for c in range(3)]
    for row in range(12):
        for column in (~present[row]).nonzero().flatten().tolist():
            distances = []
            for other in range(60):
                both = [c for c in range(3) if present[row, c] and there[other, c]]
                if both and there[other, column]:
                    apart = [((table[row, c] - train[other, c]) / spread[c]).square().mean() for c in both]
                    distances.append((float(torch.stack(apart).mean()), other))
            ranked = sorted(distances)
            weights = [1 - d / ranked[5][0] + 1e-3 for d, _ in ranked[:5]]
            mean = sum(w * train[other, column] for w, (_, other) in zip(weights, ranked, strict=False)) / sum(weights)
            torch.testing.assert_close(found[row, column], mean, rtol=1e-3, atol=1e-4)


def test_a_training_study_does_not_find_itself() -> None:
    fusion = retrieval()
    train, there = related(60, 1, rate=0.0)
    fusion.fit([(given(train, there), there)])
    present = torch.tensor([[True, True, False]]).expand(60, 3)
    itself = filled_in(fusion, train, present)[:, 2]
    others = filled_in(fusion.train(), train, present)[:, 2]
    assert (itself - train[:, 2]).square().mean() < 0.5 * (others - train[:, 2]).square().mean()


@pytest.mark.parametrize("make", [regression, retrieval])
def test_nothing_is_filled_in_before_the_fit_nor_for_a_study_without_anything(make) -> None:  # type: ignore[no-untyped-def]
    fusion = make()
    table, present = related(6, 5)
    assert torch.equal(filled_in(fusion, table, present).isfinite().all(-1), present)
    fusion.fit([(given(*related(100, 1)), related(100, 1)[1])])
    assert bool(filled_in(fusion, table, present).isfinite().all())
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    assert bool(filled_in(fusion, table[:1], nothing).isnan().all())


def test_retrieval_leaves_absent_what_no_similar_study_has() -> None:
    fusion = retrieval()
    train, there = related(60, 1)
    there[:, 2] = False
    fusion.fit([(given(train, there), there)])
    found = filled_in(fusion, *related(4, 5, rate=1.0))
    assert bool(found[:, :2].isfinite().all()) and bool(found[:, 2].isnan().all())


def test_heads_with_evidence_and_parts_read_what_was_there_alone() -> None:
    torch.manual_seed(0)
    fusion = RegressionImputation(NAMES, DIM, MaskedAttention(NAMES, DIM, 1, 2)).eval()
    fusion.fit([(given(*related(100, 1)), related(100, 1)[1])])
    table, present = related(9, 5)
    encoded = given(table, present)
    fused = fusion(encoded, present)
    assert {name: len(part.pooled) for name, part in fused.parts.items()} == {
        n: len(p.pooled) for n, p in encoded.items()
    }
    whole = fusion.fusion(given(filled_in(fusion, table, present), present | True), present | True)
    torch.testing.assert_close(fused.pooled, whole.pooled)
    for column, name in enumerate(NAMES):
        torch.testing.assert_close(fused.parts[name].tokens, whole.parts[name].tokens[present[:, column]])


def test_the_learner_fits_it_before_each_epoch_and_the_model_keeps_the_fit(tmp_path: Path) -> None:
    table, present = related(80, 1)
    model = vector_model(NAMES, DIM, lambda names, dim: regression(), {"y": Task()})
    for layer in model.standardise.values():
        layer.batches.fill_(1)  # type: ignore[union-attr]
    batch = vector_batch({n: table[:, c] for c, n in enumerate(NAMES)}, present, {"y": torch.zeros(80)})
    learner = Learner(model, [Supervised(model)], Optim(lr=1e-3))
    learner.begin_epoch([batch])
    assert learner.model.training and int(model.fusion.studies) == 80  # type: ignore[arg-type]
    alone = regression()
    alone.fit([(given(table, present), present)])
    torch.testing.assert_close(model.fusion.covariance, alone.covariance)
    again = build({"class_path": "RegressionImputation", "init_args": {**NODE, "shrinkage": 0.01}})
    again.load_state_dict(model.fusion.state_dict())
    asked, there = related(5, 7)
    torch.testing.assert_close(filled_in(again.eval(), asked, there), filled_in(model.fusion.eval(), asked, there))


NODE = {
    "modalities": list(NAMES),
    "dim": DIM,
    "fusion": {"class_path": "ConcatFusion", "init_args": {}},
}


def test_before_the_first_step_nothing_is_fitted() -> None:
    """What `standardise` will make of the vectors is not known yet."""
    model = vector_model(NAMES, DIM, lambda names, dim: regression())
    table, present = related(20, 1)
    model.fit_fusion([vector_batch({n: table[:, c] for c, n in enumerate(NAMES)}, present)])
    assert int(model.fusion.studies) == 0  # type: ignore[arg-type]


def test_a_config_states_modalities_and_width_once() -> None:
    fusion = {
        "class_path": "RetrievalImputation",
        "init_args": {"dim": DIM, "fusion": {"class_path": "AdditiveFusion"}},
    }
    encoder = {"class_path": "TableEncoder", "init_args": {"features": 3, "dim": 8, "depth": 1, "heads": 2}}
    model = build(
        {"class_path": "MultimodalModel", "init_args": {"encoders": {"a": encoder, "b": encoder}, "fusion": fusion}}
    )
    assert isinstance(model, MultimodalModel) and isinstance(model.fusion, RetrievalImputation)
    assert isinstance(model.fusion.fusion, AdditiveFusion)
    assert (model.fusion.fusion.modalities, model.fusion.fusion.dim) == (("a", "b"), DIM)


def test_wrong_arguments() -> None:
    tokens = CrossModalAttention(NAMES, DIM, 1, 2)
    for kind in (RegressionImputation, RetrievalImputation):
        with pytest.raises(ValueError, match="fills in pooled vectors, and CrossModalAttention reads tokens"):
            kind(NAMES, DIM, tokens)
    with pytest.raises(ValueError, match="positive share"):
        RegressionImputation(NAMES, DIM, ConcatFusion(NAMES, DIM), shrinkage=0.0)
    with pytest.raises(ValueError, match="fix: at least 1, and a memory"):
        RetrievalImputation(NAMES, DIM, ConcatFusion(NAMES, DIM), neighbours=9, memory=10)
