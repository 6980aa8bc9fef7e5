"""Batch: an intervention is not a copy; what is restricted after encoding equals what was never there."""

import pytest
import torch

from medssml.batch import Batch, Encoded, restrict, select_rows

NAMES = ("ct", "report")
PRESENT = torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]]).bool()


def batch() -> Batch:
    return Batch(
        inputs={"ct": torch.arange(2.0).view(2, 1), "report": {"input_ids": torch.tensor([[5], [6]])}},
        present=PRESENT,
        modalities=NAMES,
        study_id=("a", "b", "c", "d"),
        subject=torch.arange(4),
        key=torch.arange(4),
        targets={"finding": torch.tensor([0.0, 1.0, torch.nan, 0.0])},
        content={"ct": torch.tensor([1, 2]), "report": torch.tensor([3, 4])},
    )


def test_rows_are_positions_in_the_batch():
    assert len(batch()) == 4
    assert batch().rows("ct").tolist() == [0, 1]
    assert batch().rows("report").tolist() == [1, 2]
    with pytest.raises(KeyError, match="eeg"):
        batch().rows("eeg")


def test_without_is_an_intervention_and_not_a_copy():
    whole = batch()
    part = whole.without("ct")
    assert list(part.inputs) == ["report"] and list(part.content) == ["report"]
    assert part.inputs["report"] is whole.inputs["report"]
    assert part.present.tolist() == [[False, False], [False, True], [False, True], [False, False]]
    assert whole.present.equal(PRESENT)
    assert part.modalities == NAMES


def test_shapes_and_names_are_checked():
    with pytest.raises(ValueError, match=r"\(4 studies, 2 modalities\)"):
        Batch({}, PRESENT[:3], NAMES, ("a", "b", "c", "d"), torch.arange(4), torch.arange(4))
    with pytest.raises(KeyError, match="eeg"):
        Batch({"eeg": torch.zeros(1)}, PRESENT, NAMES, ("a", "b", "c", "d"), torch.arange(4), torch.arange(4))


def test_select_rows_of_tensors_and_dicts():
    inputs = batch().inputs
    assert select_rows(inputs["ct"], torch.tensor([1])).tolist() == [[1.0]]
    assert select_rows(inputs["report"], torch.tensor([False, True]))["input_ids"].tolist() == [[6]]


def test_to_moves_everything():
    moved = batch().to("meta")
    tensors = [moved.inputs["ct"], moved.inputs["report"]["input_ids"], moved.present, moved.subject, moved.key]
    tensors += [moved.targets["finding"], moved.content["ct"]]
    assert all(tensor.device.type == "meta" for tensor in tensors)


def encoded() -> dict[str, Encoded]:
    values = {"ct": torch.tensor([[10.0], [11.0]]), "report": torch.tensor([[21.0], [22.0]])}
    return {name: Encoded(v.unsqueeze(1), torch.ones(2, 1, dtype=torch.bool), v) for name, v in values.items()}


def test_restrict_keeps_the_rows_of_within():
    within = torch.tensor([[1, 0], [0, 1], [0, 1], [0, 0]]).bool()
    parts = restrict(encoded(), PRESENT, within, NAMES)
    assert parts["ct"].pooled.tolist() == [[10.0]]
    assert parts["report"].pooled.tolist() == [[21.0], [22.0]]


def test_restrict_leaves_out_what_nobody_has_left():
    within = torch.tensor([[0, 0], [0, 1], [0, 0], [0, 0]]).bool()
    parts = restrict(encoded(), PRESENT, within, NAMES)
    assert list(parts) == ["report"] and parts["report"].pooled.tolist() == [[21.0]]


def test_restrict_invents_nothing():
    with pytest.raises(ValueError, match="not present"):
        restrict(encoded(), PRESENT, torch.ones(4, 2, dtype=torch.bool), NAMES)
