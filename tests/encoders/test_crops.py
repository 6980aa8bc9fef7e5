"""Parts of what a modality shows: of the input, of the asked size, anywhere, and accepted by the encoder they are for."""

import pytest
import torch

from medssml.encoders.crops import crop_image, crop_rows, share_of
from tests.examples import ENCODERS, batch_of, encoded_of, study


def inputs_of(label, count=4):
    modality = ENCODERS[label].modality
    return batch_of([study(n, (modality,)) for n in range(count)], modalities=(modality,)).inputs[modality]


def made(label):
    torch.manual_seed(0)
    return ENCODERS[label].make().eval()


def test_a_window_is_a_window_of_its_own_image_wherever_it_lies():
    images = torch.arange(2 * 1 * 5 * 7, dtype=torch.float32).reshape(2, 1, 5, 7)
    found = set()
    for draw in torch.rand(200, 2, 2, generator=torch.Generator().manual_seed(0)):
        windows = crop_image(images, (2, 3), draw)
        assert windows.shape == (2, 1, 2, 3)
        for image, window in zip(images, windows, strict=True):
            row, column = divmod(int(window[0, 0, 0] - image[0, 0, 0]), 7)
            assert torch.equal(window, image[:, row : row + 2, column : column + 3])
            found.add((row, column))
    assert found == {(row, column) for row in range(4) for column in range(5)}


@pytest.mark.parametrize(
    ("length", "share", "step", "part"),
    [(16, 0.5, 1, 8), (16, 0.43, 4, 8), (16, 0.3, 4, 4), (8, 0.01, 4, 4), (110, 1.0, 20, 100)],
)
def test_a_share_is_a_multiple_of_the_step_and_at_least_one(length, share, step, part):
    assert share_of(length, share, step) == part


def test_rows_begin_where_they_are_told():
    values = torch.arange(12.0).reshape(2, 1, 6)
    assert crop_rows(values, torch.tensor([1, 5]), 2).tolist() == [[[1.0, 2.0]], [[11.0, 11.0]]]


@pytest.mark.parametrize("label", ENCODERS)
def test_an_encoder_takes_its_own_parts_or_has_none(label):
    encoder, inputs = made(label), inputs_of(label)
    part = encoder.crop(inputs, 0.5, torch.rand(4, 3, generator=torch.Generator().manual_seed(1)))
    if label == "TableEncoder":
        assert part is None
        return
    encoded = encoded_of(encoder, part)
    assert bool(encoded.pooled.isfinite().all()) and bool(encoded.mask.any(1).all())
    assert not torch.allclose(encoded.pooled, encoded_of(encoder, inputs).pooled, atol=1e-4)
    if label.startswith("ViT"):
        assert encoded.tokens.shape[1] < encoded_of(encoder, inputs).tokens.shape[1]


@pytest.mark.parametrize("label", ENCODERS)
def test_the_part_of_a_study_does_not_depend_on_the_others(label):
    encoder = made(label)
    place = torch.rand(4, 3, generator=torch.Generator().manual_seed(1))
    together = encoder.crop(inputs_of(label), 0.5, place)
    alone = encoder.crop(inputs_of(label, 1), 0.5, place[:1])
    if together is None:
        assert alone is None
        return
    if label.startswith("EEG"):
        samples = int(alone["length"][0])
        assert samples == int(together["length"][0])
        assert torch.equal(alone["signal"][0, :2, :samples], together["signal"][0, :2, :samples])
    elif isinstance(alone, dict):
        length = int(alone["attention_mask"].sum())
        assert torch.equal(alone["input_ids"][0, :length], together["input_ids"][0, :length])
        assert not bool(together["attention_mask"][0, length:].any())
    else:
        torch.testing.assert_close(alone[0], together[0])


def test_an_eeg_keeps_all_channels_in_a_window_of_whole_patches():
    encoder, inputs = made("EEGTransformer"), inputs_of("EEGTransformer")
    part = encoder.crop(inputs, 0.5, torch.tensor([[0.0], [0.5], [0.99], [0.99]]).expand(4, 3))
    assert inputs["length"].tolist() == [60, 80, 100, 120] and part["length"].tolist() == [40, 40, 40, 60]
    for row, (start, samples) in enumerate(((0, 40), (20, 40), (60, 40), (60, 60))):
        torch.testing.assert_close(part["signal"][row, :, :samples], inputs["signal"][row, :, start : start + samples])
    assert torch.equal(part["channels"], inputs["channels"])
    short = {**inputs, "length": torch.tensor([20, 80, 100, 120])}
    assert encoder.crop(short, 0.5, torch.full((4, 3), 0.99))["length"].tolist() == [20, 40, 40, 60]


def test_a_text_keeps_its_first_and_last_token_and_consecutive_words():
    encoder = made("TextEncoder")
    ids = torch.tensor([[2, 10, 11, 12, 13, 3], [2, 20, 21, 3, 0, 0], [2, 3, 0, 0, 0, 0]])
    place = torch.tensor([[0.99], [0.0], [0.5]]).expand(3, 3)
    part = encoder.crop({"input_ids": ids, "attention_mask": (ids > 0).long()}, 0.5, place)
    assert part["input_ids"].tolist() == [[2, 12, 13, 3], [2, 20, 3, 0], [2, 3, 0, 0]]
    assert part["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 0, 0]]
