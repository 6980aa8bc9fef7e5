"""Captioning: of whom nothing is shown, study by study, and that it is so in training alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssml.fusion import AdditiveFusion
from medssml.objectives import Captioning, Clock, PrefixLanguage, Step
from medssml.objectives.draws import uniform
from tests.examples import batch_of, study, tiny_model


def test_of_a_share_of_the_studies_nothing_is_shown_in_training():
    model = tiny_model().eval()
    torch.manual_seed(0)
    objective = Captioning(model, dim=16, depth=1, heads=2, blind=0.5).train()
    studies = [study(n, ("ct", "report")) for n in range(8)]
    batch = batch_of(studies)
    hidden = (uniform(batch.key, 1, "captioning.blind", seed=3).squeeze(1) < 0.5).tolist()
    assert 0 < sum(hidden) < 8

    def loss(nothing: list[bool]) -> float:
        total, words = 0.0, 0
        for one, blind in zip(studies, nothing, strict=True):
            bare = batch_of([one]).without("report")
            fused = model.fuse(model.encode(bare), bare.present)
            text = one["inputs"]["report"][None]
            logits = objective.decoder(text[:, :-1], fused.tokens, fused.mask & (not blind))[0]
            total += float(F.cross_entropy(logits, text[0, 1:], reduction="sum").detach())
            words += text.shape[1] - 1
        return total / words

    assert float(objective(Step(model, batch, seed=3))["loss"].detach()) == pytest.approx(loss(hidden), rel=1e-4)
    assert float(objective.eval()(Step(model, batch, seed=3))["loss"].detach()) == pytest.approx(
        loss([False] * 8), rel=1e-4
    )
    assert loss(hidden) != pytest.approx(loss([False] * 8), rel=1e-4)


@pytest.mark.parametrize("kind", [Captioning, PrefixLanguage])
@pytest.mark.parametrize("fusion", [None, AdditiveFusion])
def test_before_an_epoch_the_decoder_is_told_where_tokens_lie_once_the_model_has_begun(kind, fusion, monkeypatch):
    model = tiny_model(fusion=fusion).eval()
    objective = kind(model, dim=16, depth=1, heads=2).eval()
    studies = [study(n, ("ct", "report") if n % 2 else ("ct", "eeg", "report")) for n in range(12)]
    batches = [batch_of(studies[:5]), batch_of(studies[5:9]), batch_of(studies[9:])]
    objective.begin_epoch(Clock(), model, batches)
    assert not objective.decoder.mean.any()  # the model has seen nothing yet
    for layer in model.standardise.values():
        layer.batches += 1
    monkeypatch.setattr("medssml.objectives.captioning.OBSERVED", 9)
    with torch.no_grad():
        objective.begin_epoch(Clock(), model, batches)
    seen = batch_of(studies[:9])  # as many as are asked for, no more
    within = seen.present.clone()
    if kind is Captioning:
        within[:, model.modalities.index("report")] = False
    fused = model.fuse(model.encode(seen), seen.present, within)
    slots = len(objective.decoder.mean)
    assert slots == (len(model.modalities) if fusion is AdditiveFusion else 1)
    for slot in range(slots):
        tokens = fused.tokens[fused.mask] if slots == 1 else fused.tokens[fused.mask[:, slot], slot]
        expected = tokens.mean(0) if len(tokens) else torch.zeros(model.dim)
        torch.testing.assert_close(objective.decoder.mean[slot], expected, rtol=1e-4, atol=1e-5)


def test_a_share_that_is_none_is_refused():
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="expected a share"):
            Captioning(tiny_model(), blind=share)


def test_modalities_that_are_not_named_are_not_read_behind_a_fusion_of_vectors():
    model = tiny_model(fusion=AdditiveFusion).eval()
    objective = Captioning(model, modalities=["ct"], dim=16, depth=1, heads=2)
    assert {model.modalities[place] for place in objective.decoder.unread} == {"xray", "eeg"}
    assert not Captioning(model, dim=16, depth=1, heads=2).decoder.unread
    with pytest.raises(ValueError, match="the model has"):
        Captioning(model, modalities=["mri"])
    with pytest.raises(ValueError, match="behind an AdditiveFusion only"):
        Captioning(tiny_model(), modalities=["ct"])
