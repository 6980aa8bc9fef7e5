"""BIOT: the whole of a recording among the parts of all, written out; what is hidden, who is no negative."""

import math

import pytest
import torch

from medssml.objectives import BIOT, Step
from medssml.objectives.masking import draw_masking
from tests.examples import batch_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def unit(row):
    return [x / math.hypot(*row) for x in row]


def test_is_the_softmax_of_the_whole_over_the_parts_of_all(model):
    objective = BIOT(model, modalities=["eeg"], temperature=0.3).eval()
    studies = [study(n, ("eeg",)) for n in range(5)]
    batch = batch_of(studies)
    encoder, inputs = model.encoders["eeg"], batch.inputs["eeg"]
    keep = draw_masking(encoder.token_mask(inputs), batch.key, 0.5, "biot/eeg").keep
    whole = model.project["eeg"](encoder(inputs).pooled)
    part = objective.predict["eeg"](model.project["eeg"](encoder(inputs, keep=keep).pooled))
    z, p = ([unit(row) for row in rows.tolist()] for rows in (whole, part))
    terms = []
    for i in range(5):
        powers = [math.exp(sum(a * b for a, b in zip(z[i], p[j], strict=True)) / 0.3) for j in range(5)]
        terms.append(-math.log(powers[i] / sum(powers)))
    assert float(objective(Step(model, batch))["loss"].detach()) == pytest.approx(sum(terms) / 5, rel=1e-4)


def test_the_part_shows_half_of_the_tokens_and_both_passes_learn(model):
    objective = BIOT(model, modalities=["ct"])
    seen = []
    original = model.encoders["ct"].forward
    model.encoders["ct"].forward = lambda inputs, keep=None, layers=0: (
        seen.append(None if keep is None else keep.shape[1]),
        original(inputs, keep, layers),
    )[1]
    try:
        step = Step(model, batch_of(ten_studies()))
        objective(step)
    finally:
        del model.encoders["ct"].forward
    assert sorted(seen, key=str) == [4, None]  # of eight
    part = step.encode(keep={"ct": torch.zeros(5, 4, dtype=torch.int64)})["ct"].pooled
    assert step.encoded["ct"].pooled.requires_grad and part.requires_grad


def test_studies_of_one_subject_are_no_negatives(model):
    objective = BIOT(model, modalities=["eeg"])
    assert objective(Step(model, batch_of([study(n, ("eeg",), subject=5) for n in range(3)]))) is None


def test_by_default_all_that_can_leave_tokens_out_and_no_other(model):
    assert list(BIOT(model).predict) == ["ct", "xray", "eeg"]
    with pytest.raises(ValueError, match="BIOT of report: its encoder TextEncoder cannot leave tokens out"):
        BIOT(model, modalities=["report"])
    for wrong in ({"mask_ratio": 1.0}, {"temperature": 0.0}):
        with pytest.raises(ValueError, match="fix: a share between 0 and 1"):
            BIOT(model, **wrong)
