"""MultiMAE: shares of visible tokens, the error written out, and what is hidden or absent moves nothing."""

from __future__ import annotations

import pytest
import torch

from medssml.encoders import EEGTransformer, ViT
from medssml.fusion import ConcatFusion
from medssml.losses import normalise_patches
from medssml.model import MultimodalModel
from medssml.objectives import MultiMAE, Step
from medssml.objectives.multi_mae import shares
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def small(model: MultimodalModel, **options: object) -> MultiMAE:
    torch.manual_seed(0)
    return MultiMAE(model, decoder_dim=16, decoder_depth=1, decoder_heads=2, **options).eval()  # type: ignore[arg-type]


def test_shares_are_dirichlet_over_what_a_study_has():
    tokens = torch.tensor([100, 100, 0, 100]).repeat(4000, 1)
    counts = shares(tokens, torch.rand(4000, 4, generator=torch.Generator().manual_seed(0)), 0.2)
    assert bool((counts.sum(1) == 60).all()) and bool((counts[:, 2] == 0).all())
    part = counts[:, [0, 1, 3]].double() / 60
    # Dirichlet(1, 1, 1): mean 1/3, variance 1/18, a part below x with probability 1 - (1 - x)^2.
    torch.testing.assert_close(part.mean(0), torch.full((3,), 1 / 3, dtype=torch.float64), atol=0.01, rtol=0)
    torch.testing.assert_close(part.var(0), torch.full((3,), 1 / 18, dtype=torch.float64), atol=0.004, rtol=0)
    for x in (0.1, 0.5):
        assert float((part < x).double().mean()) == pytest.approx(1 - (1 - x) ** 2, abs=0.03)


def test_shares_keep_to_what_there_is():
    tokens = torch.tensor([[4, 0], [4, 200], [1, 0], [0, 0], [1, 1]])
    for seed in range(20):
        counts = shares(tokens, torch.rand(5, 2, generator=torch.Generator().manual_seed(seed)), 0.9)
        assert bool((counts <= tokens).all()) and bool((counts >= 0).all())
        assert counts[0].tolist() == [3, 0] and counts[2].tolist() == [1, 0] and counts[3].tolist() == [0, 0]
        assert int(counts[4].sum()) == 1


def test_the_loss_is_the_error_of_hidden_tokens(model):
    objective = small(model)
    for decoder in objective.decoders.values():
        torch.nn.init.zeros_(decoder.predict.weight)
        torch.nn.init.constant_(decoder.predict.bias, 0.25)
    step = Step(model, batch_of(ten_studies()))
    means = []
    for name, masking in objective._maskings(step).items():
        encoder, inputs = model.encoders[name], step.batch.inputs[name]
        patches = encoder.patches(inputs)
        target = patches if encoder.standardised else normalise_patches(patches)
        assert bool((masking.masked <= encoder.token_mask(inputs)).all())
        means.append(float((target[masking.masked] - 0.25).square().mean(-1).mean()))
    assert len(means) == 3
    assert float(objective(step)["loss"].detach()) == pytest.approx(sum(means) / 3, rel=1e-5)


def test_what_is_hidden_moves_no_prediction(model):
    """Hidden patches of two modalities are changed; predictions are read where nothing is compared with them."""
    objective, seen = small(model), []
    objective.decoders["ct"].predict.register_forward_hook(lambda _, __, out: seen.append(out.detach()))
    studies = [study(n, ("ct", "xray")) for n in range(6)]
    objective(Step(model, batch_of(studies)))
    maskings = objective._maskings(Step(model, batch_of(studies)))
    batch = batch_of(studies)
    for name, patch in (("ct", 4), ("xray", 4)):
        for row in range(6):
            for token in maskings[name].masked[row].nonzero().squeeze(1).tolist():
                grid = model.encoders[name].grid
                place = torch.unravel_index(torch.tensor(token), grid)
                where = tuple(slice(int(p) * patch, (int(p) + 1) * patch) for p in place)
                batch.inputs[name][(row, 0, *where)] = 7.0
    objective(Step(model, batch))
    torch.testing.assert_close(seen[1], seen[0], rtol=1e-4, atol=1e-5)
    batch = batch_of(studies)
    batch.inputs["xray"].mul_(0.2)
    objective(Step(model, batch))
    assert not torch.allclose(seen[2], seen[0], atol=1e-4), "a CT is restored without its X-ray"


def test_a_study_is_masked_the_same_in_any_company(model):
    objective, studies = small(model), ten_studies()
    together = objective._maskings(Step(model, batch_of(studies)))["ct"].masked
    rows = [n for n, one in enumerate(studies) if "ct" in one["inputs"]]
    for place, number in enumerate(rows):
        alone = objective._maskings(Step(model, batch_of([studies[number]])))["ct"].masked
        assert torch.equal(alone[0], together[place])


def test_a_modality_that_shows_nothing_is_absent_for_the_fusion(model, monkeypatch):
    objective, seen, fuse = small(model), [], Step.fuse
    monkeypatch.setattr(
        Step, "fuse", lambda self, encoded, within: (seen.append(within), fuse(self, encoded, within))[1]
    )
    step = Step(model, batch_of([study(n, ("ct", "xray", "eeg")) for n in range(12)]))
    objective(step)
    shown = torch.zeros_like(step.present)
    for name, masking in objective._maskings(step).items():
        real = model.encoders[name].token_mask(step.batch.inputs[name])
        shown[:, step.batch.column(name)] = (real & ~masking.masked).any(1)
    assert bool((shown != step.present).any()) and torch.equal(seen[0], shown)


@pytest.mark.parametrize("kind", ["ViT", "EEGTransformer"])
def test_a_row_that_keeps_fewer_tokens_is_encoded_as_alone(kind):
    """-1 stands for no token: neither seen nor pooled, whatever the longest row keeps."""
    torch.manual_seed(0)
    if kind == "ViT":
        encoder, name = ViT((8, 8, 8), 4, 24, 1, 2).eval(), "ct"
    else:
        encoder, name = EEGTransformer(24, 1, 2, patch_samples=20, sfreq=100.0, channel_names=20).eval(), "eeg"
    inputs = batch_of([study(n, (name,)) for n in (0, 4)]).inputs[name]
    both = encoder(inputs, keep=torch.tensor([[3, 1, 0], [2, -1, -1]]))
    assert both.mask.tolist() == [[True, True, True], [True, False, False]]
    alone = encoder(inputs, keep=torch.tensor([[3], [2]]))
    torch.testing.assert_close(both.tokens[1, :1], alone.tokens[1], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(both.pooled[1], alone.pooled[1], rtol=1e-4, atol=1e-5)
    assert bool(encoder(inputs, keep=torch.tensor([[-1], [-1]])).tokens.isfinite().all())


def test_what_cannot_be_is_refused(model):
    with pytest.raises(ValueError, match="cannot leave tokens out"):
        small(model, modalities=["report"])
    with pytest.raises(ValueError, match="visible is 1"):
        small(model, visible=1)
    with pytest.raises(ValueError, match="reads pooled vectors"):
        small(tiny_model(fusion=lambda names, dim: ConcatFusion(names, dim)))
