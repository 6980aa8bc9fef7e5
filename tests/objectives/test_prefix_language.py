"""The prefix language model: words after the prefix counted one by one; what comes after it is shown nowhere."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives import PrefixLanguage, Step
from tests.examples import batch_of, study, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def objective_of(model: MultimodalModel) -> PrefixLanguage:
    torch.manual_seed(0)
    return PrefixLanguage(model, dim=16, depth=1, heads=2).eval()


def test_the_loss_is_the_mean_over_words_after_the_prefix(model):
    objective = objective_of(model)
    studies = [study(n, ("ct", "report") if n % 2 else ("report",)) for n in range(8)]
    step = Step(model, batch_of(studies))
    prefix = objective._prefix(step).tolist()
    total, words = 0.0, 0
    for one, length in zip(studies, prefix, strict=True):
        text = one["inputs"]["report"]
        assert 1 <= length <= len(text) - 2
        shown = {**one, "inputs": {**one["inputs"], "report": text[:length]}}
        if length == 1:
            shown["inputs"].pop("report")
            if not shown["inputs"]:
                continue
        batch = batch_of([shown])
        fused = model.fuse(model.encode(batch), batch.present)
        logits = objective.decoder(text[None, :-1], fused.tokens, fused.mask)[0]
        total += float(F.cross_entropy(logits[length - 1 :], text[length:], reduction="sum").detach())
        words += len(text) - length
    assert len(set(prefix)) > 2
    assert float(objective(step)["loss"].detach()) == pytest.approx(total / words, rel=1e-4)


def test_what_comes_after_the_prefix_is_not_shown(model):
    objective = objective_of(model)
    step = Step(model, batch_of([study(n, ("ct", "report")) for n in range(4)]))
    shown = objective._shown(step)
    prefix = objective._prefix(step)
    changed = batch_of([study(n, ("ct", "report")) for n in range(4)])
    ids = changed.inputs["report"]["input_ids"]
    later = (torch.arange(ids.shape[1]) >= prefix[:, None]) & (ids > 5)
    changed.inputs["report"]["input_ids"] = torch.where(later, 6 + (ids * 3) % 30, ids)
    assert bool(later.any())
    other = objective._shown(Step(model, changed))
    torch.testing.assert_close(other.tokens[other.mask], shown.tokens[shown.mask])
    changed.inputs["report"]["input_ids"] = torch.where(~later & (ids > 5), 6 + (ids * 3) % 30, ids)
    assert not torch.equal(objective._shown(Step(model, changed)).pooled, shown.pooled)


def test_prefixes_are_of_every_length_and_belong_to_the_study(model):
    objective = objective_of(model)
    studies = [study(2, ("report",)) for _ in range(400)]
    for number, one in enumerate(studies):
        one["key"] = number
    found = objective._prefix(Step(model, batch_of(studies)))
    words = len(studies[0]["inputs"]["report"]) - 2
    counts = torch.bincount(found, minlength=words + 1)[1:]
    assert len(counts) == words and float(counts.min()) > 0.5 * 400 / words
    assert torch.equal(objective._prefix(Step(model, batch_of(studies[50:60]))), found[50:60])
