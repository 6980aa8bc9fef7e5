"""Captioning: of whom nothing is shown, study by study, and that it is so in training alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssml.objectives import Captioning, Step
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


def test_a_share_that_is_none_is_refused():
    for share in (-0.1, 1.0):
        with pytest.raises(ValueError, match="expected a share"):
            Captioning(tiny_model(), blind=share)
