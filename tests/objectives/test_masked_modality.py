"""Hidden modalities from the rest of the study: written out one by one; what was never there is no target."""

from __future__ import annotations

import pytest
import torch

from medssml.config import LeftOut
from medssml.fusion import AdditiveFusion
from medssml.model import MultimodalModel
from medssml.objectives import MaskedModality, Step
from medssml.objectives.dropout_consistency import reduced_presence
from tests.examples import MODALITIES, Study, batch_of, study, ten_studies, tiny_model


@pytest.fixture(params=["attention", "additive"])
def model(request: pytest.FixtureRequest) -> MultimodalModel:
    fusion = None if request.param == "attention" else lambda names, dim: AdditiveFusion(names, dim, 0)
    return tiny_model(fusion=fusion).eval()


def made(model: MultimodalModel, **options: float) -> MaskedModality:
    torch.manual_seed(1)
    return MaskedModality(model, **options).eval()  # type: ignore[arg-type]


def test_is_the_mean_over_hidden_modalities_of_the_error_of_each(model: MultimodalModel) -> None:
    objective, studies = made(model, p=0.6), ten_studies()
    batch = batch_of(studies)
    within = reduced_presence(batch.present, batch.key, 0.6)
    errors = []
    for row, one in enumerate(studies):
        alone = batch_of([one])
        encoded = model.encode(alone)
        fused = model.fuse(encoded, alone.present, within[row : row + 1])
        context = torch.cat([fused.pooled[:, None], fused.tokens[fused.mask][None]], dim=1)
        for column, name in enumerate(MODALITIES):
            if not batch.present[row, column] or within[row, column]:
                continue
            query = (objective.token + objective.modality[column])[None, None]
            for block in objective.blocks:
                query = block(query, context, torch.ones(context.shape[:2], dtype=torch.bool))
            answer = objective.out(objective.norm(query))[0, 0]
            truth = encoded[name].pooled[0]
            normal = (truth - truth.mean()) / (truth.var(unbiased=False) + 1e-5).sqrt()
            errors.append((answer - normal).square().mean())
    assert len(errors) == int((batch.present & ~within).sum()) > 7
    found = objective(Step(model, batch))
    assert found is not None
    torch.testing.assert_close(found["loss"], torch.stack(errors).mean(), rtol=1e-4, atol=1e-6)


def test_the_shown_modality_learns_and_the_hidden_one_is_a_fixed_target(model: MultimodalModel) -> None:
    objective = made(model)
    one = batch_of([study(0, ("ct", "eeg"))])
    within = reduced_presence(one.present, one.key, 0.5)
    model.zero_grad()
    found = objective(Step(model, one))
    assert found is not None
    found["loss"].backward()
    for column, modality in enumerate(one.modalities):
        gradients = [p.grad for p in model.encoders[modality].parameters() if p.grad is not None]
        assert any(bool(g.any()) for g in gradients) == bool(within[0, column]), modality


def test_where_nothing_can_be_hidden_there_is_no_term_and_it_spoils_no_other(model: MultimodalModel) -> None:
    objective = made(model)
    single: list[Study] = [study(0, ("ct",)), study(1, ()), study(2, ("report",))]
    assert objective(Step(model, batch_of(single))) is None
    pair = [study(3, ("ct", "report"))]
    alone, together = (objective(Step(model, batch_of(studies))) for studies in (pair, pair + single))
    assert alone is not None and together is not None
    torch.testing.assert_close(alone["loss"], together["loss"])


def test_which_are_hidden_belongs_to_each_study_and_not_to_the_batch(model: MultimodalModel) -> None:
    objective = made(model)
    studies = [study(n, MODALITIES) for n in range(8)]
    hidden = objective._hidden(Step(model, batch_of(studies)))
    assert len(hidden.unique(dim=0)) > 2
    assert torch.equal(objective._hidden(Step(model, batch_of(studies[3:5]))), hidden[3:5])


def test_learns_what_one_modality_says_of_another() -> None:
    """The second modality is a copy of the first, the third is noise: the copy is found, the noise is not."""
    torch.manual_seed(0)
    from tests.objectives.vectors import vector_batch, vector_model

    model = vector_model(("a", "b", "c"), 8)
    objective = MaskedModality(model, depth=1, heads=2)
    optimiser = torch.optim.Adam([*objective.parameters(), *model.fusion.parameters()], lr=3e-3)
    generator = torch.Generator().manual_seed(0)

    def batch(count: int, epoch: int):  # type: ignore[no-untyped-def]
        a = torch.randn(count, 8, generator=generator)
        return vector_batch({"a": a, "b": a, "c": torch.randn(count, 8, generator=generator)}, epoch=epoch)

    for epoch in range(300):
        optimiser.zero_grad()
        found = objective(Step(model, batch(64, epoch)))
        assert found is not None
        found["loss"].backward()
        optimiser.step()
    step = Step(model, batch(256, 999))
    fused = step.fuse(step.encoded, torch.tensor([True, False, False]).expand(256, 3))
    guessed = objective._decode(fused)
    errors = [
        (guessed[:, c] - torch.nn.functional.layer_norm(step.encoded[n].pooled, (8,))).square().mean()
        for c, n in ((1, "b"), (2, "c"))
    ]
    assert errors[0] < 0.5 and 0.85 < errors[1] < 1.3


def test_wrong_arguments(model: MultimodalModel) -> None:
    for wrong in ({"p": 0.0}, {"p": 1.0}, {"depth": 0}):
        with pytest.raises(ValueError, match="fix: p between 0 and 1"):
            MaskedModality(model, **wrong)  # type: ignore[arg-type]
    with pytest.raises(LeftOut, match="two modalities"):
        MaskedModality.restricted_to({}, ["ct"])
