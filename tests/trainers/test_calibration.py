"""A trained model is calibrated: per subset, without a change of order, saved, and gone when training goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.subsets import predict_subsets
from medssml.model import MultimodalModel, Task
from medssml.statistics.calibration import calibration_error
from medssml.statistics.pattern_calibration import MARGIN
from medssml.trainers.calibration import calibrate
from medssml.trainers.heads import begin_heads
from tests.examples import batch_of, ten_studies, tiny_model

from .toy import ToyLoader, toy_model

PLUGIN = ToyLoader.__module__


def too_sure() -> tuple[MultimodalModel, EncodedStudies, EncodedStudies]:
    """A probe with logits five times as large as they should be; half of the studies lack the report."""
    from medssml.trainers.probe_first import fit_heads

    model = toy_model()
    learned, held_out = (encode_studies(model, ToyLoader(studies=600, seed=seed)) for seed in (0, 1))
    fit_heads(model, ["sick"], learned)
    with torch.no_grad():
        model.heads["sick"].linear.weight *= 5
        model.heads["sick"].linear.bias *= 5
    return model, held_out, learned


def test_answers_become_as_sure_as_they_are_right_and_keep_their_order() -> None:
    model, held_out, learned = too_sure()
    before = predict_subsets(model, held_out)
    said = calibrate(model, ["sick"], held_out, learned)
    after = predict_subsets(model, held_out)
    fresh = predict_subsets(model, encode_studies(model, ToyLoader(studies=600, seed=2)))
    for subset in (1, 2, 3):
        rows = fresh.holds(subset)
        y, p = fresh.targets["sick"][rows], fresh.probabilities("sick")[rows, subset]
        one = np.ones((1, len(y)))
        raw = 1 / (1 + np.exp(-(np.log(p / (1 - p)) - float(model.heads["sick"].calibration.shift[subset, 0]))
                              / float(model.heads["sick"].calibration.scale[subset])))  # fmt: skip
        assert calibration_error(y, p, one)[0] < 0.5 * calibration_error(y, raw, one)[0], subset
        there = before.holds(subset)
        order = np.argsort(before.outputs["sick"][there, subset], kind="stable")
        assert (np.diff(after.outputs["sick"][there, subset][order]) >= 0).all()
    assert "calibrated per subset on 600 validation and 600 training studies" in said["sick"]


def test_a_modality_that_says_nothing_does_not_make_answers_less_sure() -> None:
    from medssml.trainers.probe_first import fit_heads

    model, loaders = toy_model(), [ToyLoader(studies=600, seed=seed) for seed in (0, 1)]
    for loader in loaders:
        loader.label = (loader.x[:, 0, 0] > 0).float()
    learned, held_out = map(encode_studies, [model] * 2, loaders)
    fit_heads(model, ["sick"], learned)
    calibrate(model, ["sick"], held_out, learned)
    steps = []
    for studies in (learned, held_out):
        found = predict_subsets(model, studies)
        p = found.probabilities("sick")[found.holds(3)]
        steps += (np.maximum(p, 1 - p)[:, 3] - np.maximum(p, 1 - p)[:, 1]).tolist()
    assert np.mean(steps) > MARGIN - 1e-4


def test_the_answer_of_a_study_is_that_of_what_was_seen_of_it() -> None:
    model, held_out, learned = too_sure()
    before = predict_subsets(model, held_out)
    raw = before.outputs["sick"]
    calibrate(model, ["sick"], held_out, learned)
    part = model.heads["sick"].calibration
    assert part is not None
    seen = before.full[:, None] & np.arange(4)
    wanted = raw * part.scale.numpy()[seen] + part.shift.numpy()[seen, 0]
    np.testing.assert_allclose(predict_subsets(model, held_out).outputs["sick"], wanted, atol=1e-4)
    with torch.no_grad():
        batches = [model(batch)["sick"] for batch in ToyLoader(studies=600, seed=1)]
    observed = wanted[np.arange(600), before.full]
    np.testing.assert_allclose(torch.cat(batches).numpy(), observed, atol=1e-3)


def test_it_is_saved_and_leaves_when_training_goes_on(tmp_path: Path) -> None:
    model, held_out, learned = too_sure()
    raw = predict_subsets(model, held_out).outputs["sick"]
    calibrate(model, ["sick"], held_out, learned)
    again = MultimodalModel.load(model.save(tmp_path / "model"), [PLUGIN])
    assert again.tasks["sick"].calibrated
    batch = next(iter(ToyLoader(studies=20)))
    with torch.no_grad():
        assert torch.equal(model.eval()(batch)["sick"], again(batch)["sick"])
    begin_heads(again, {"sick": Task()})
    assert not again.tasks["sick"].calibrated
    np.testing.assert_array_equal(predict_subsets(again, held_out).outputs["sick"], raw)
    assert not MultimodalModel.load(again.save(tmp_path / "later"), [PLUGIN]).tasks["sick"].calibrated
    # What is learned of another task, with all but the heads as they were, leaves it alone.
    begin_heads(model, {"other": Task()}, "all_but_heads")
    assert model.tasks["sick"].calibrated


def test_calibrated_twice_is_calibrated_once() -> None:
    model, held_out, learned = too_sure()
    calibrate(model, ["sick"], held_out, learned)
    once = predict_subsets(model, held_out).outputs["sick"]
    calibrate(model, ["sick"], held_out, learned)
    np.testing.assert_allclose(predict_subsets(model, held_out).outputs["sick"], once, atol=1e-5)


def test_classes_are_calibrated_and_numbers_are_not() -> None:
    model = tiny_model()
    model.add_task("age", Task("regression", mean=50.0, sd=10.0))
    studies = encode_studies(model, [batch_of(ten_studies())])
    before = predict_subsets(model, studies).outputs["age"]
    said = calibrate(model, list(model.tasks), None, studies)
    assert said["age"] == "not calibrated: a regression has no probabilities" and model.heads["age"].calibration is None
    assert said["grade"].startswith("calibrated per subset on 0 validation")
    assert model.heads["grade"].calibration.shift.shape == (16, 3)
    np.testing.assert_array_equal(predict_subsets(model, studies).outputs["age"], before)
    # Offsets alone, of what was learned: how sure the model may be is shown by other studies only.
    assert float(model.heads["finding"].calibration.shift.abs().max()) > 0


def test_many_modalities_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    model, held_out, learned = too_sure()
    monkeypatch.setattr("medssml.trainers.calibration.MODALITIES", 1)
    assert "2 modalities have 4 subsets" in calibrate(model, ["sick"], held_out, learned)["sick"]
    assert model.heads["sick"].calibration is None


def test_answers_that_are_not_finite_and_validation_studies_of_one_class_spoil_nothing() -> None:
    model, held_out, learned = too_sure()
    held_out.targets["sick"][:] = 1.0
    calibrate(model, ["sick"], held_out, learned)
    part = model.heads["sick"].calibration
    assert part is not None and torch.isfinite(part.scale).all() and torch.isfinite(part.shift).all()
    with torch.no_grad():
        model.heads["sick"].linear.bias.fill_(float("nan"))
    assert calibrate(model, ["sick"], held_out, learned)["sick"].startswith("not calibrated: some of its answers")
    assert model.heads["sick"].calibration is None


def test_wrong_shapes_are_refused() -> None:
    model = toy_model()
    with pytest.raises(ValueError, match=r"sick: scale \(3,\).*fix: \(4,\) and \(4, 1\)"):
        model.calibrate("sick", torch.ones(3), torch.ones(4, 1))
    model.add_task("age", Task("regression"))
    with pytest.raises(ValueError, match="age is a regression"):
        model.calibrate("age", torch.ones(4), torch.ones(4, 1))
