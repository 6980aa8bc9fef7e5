"""What is measured beside an encoder: against scikit-learn and scikit-image, fitted once, and nothing that leaks."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from medssml.batch import Batch, Encoded
from medssml.encoders import CTDescriptor, Descriptor, WordDescriptor, XrayDescriptor
from medssml.encoders.descriptor import Descriptors
from medssml.encoders.image_descriptors import ct_features, xray_features
from medssml.encoders.word_descriptor import PAIR, word_counts

WORDS, SPECIAL = 30, 6


def reports(count: int = 60, seed: int = 0) -> dict[str, Tensor]:
    """Texts of 4 to 12 tokens between [CLS] and [SEP], in three topics, filled up with [PAD]."""
    draw = np.random.default_rng(seed)
    ids = torch.zeros(count, 14, dtype=torch.int64)
    for row in range(count):
        topic = draw.dirichlet(np.full(WORDS - SPECIAL, 0.2)) + 2.0 * (np.arange(WORDS - SPECIAL) % 3 == row % 3)
        words = draw.choice(WORDS - SPECIAL, draw.integers(4, 13), p=topic / topic.sum()) + SPECIAL
        ids[row, : len(words) + 2] = torch.tensor([2, *words, 3])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


def fitted(descriptor: Descriptor, inputs: object, subjects: Tensor | None = None) -> Descriptor:
    rows = len(inputs["input_ids"] if isinstance(inputs, dict) else inputs)  # type: ignore[arg-type]
    subjects = torch.arange(rows) if subjects is None else subjects
    for part in (slice(0, 7), slice(7, rows)):
        some = {k: v[part] for k, v in inputs.items()} if isinstance(inputs, dict) else inputs[part]  # type: ignore[index]
        descriptor.see(some, subjects[part])
    descriptor.learn()
    return descriptor


def assert_same_up_to_sign(ours: Tensor, theirs: np.ndarray, atol: float = 2e-3) -> None:
    mine = ours.double().numpy()
    sign = np.sign((mine * theirs).sum(0))
    np.testing.assert_allclose(mine, theirs * sign, atol=atol)


def test_words_are_those_of_latent_semantic_analysis() -> None:
    inputs = reports()
    words = fitted(WordDescriptor(WORDS, 4, pairs=0, min_subjects=1), inputs)
    texts = [[str(int(t)) for t in row if t >= SPECIAL] for row in inputs["input_ids"]]
    x = TfidfVectorizer(analyzer=lambda text: text, sublinear_tf=True).fit_transform(texts).toarray()
    found = x @ np.linalg.svd(x, full_matrices=False)[2][:4].T
    # One scale for all, by which they have a variance of 1 on average: a rare word does not count as much as a common one.
    assert_same_up_to_sign(words(inputs), (found - found.mean(0)) / np.sqrt(found.var(0).mean()))


def test_pairs_of_words_are_counted_in_their_buckets() -> None:
    inputs = reports(8)
    special = torch.arange(SPECIAL)
    counts = word_counts(inputs["input_ids"], inputs["attention_mask"], special, WORDS, 16)
    expected = torch.zeros(8, WORDS + 16)
    for row, ids in enumerate(inputs["input_ids"]):
        text = [int(t) for t in ids if t >= SPECIAL]
        for token in text:
            expected[row, token] += 1
        for a, b in zip(text, text[1:], strict=False):
            expected[row, WORDS + (a * PAIR + b) % 16] += 1
    torch.testing.assert_close(counts, expected)


def test_what_fewer_than_five_subjects_have_does_not_count() -> None:
    inputs, name = reports(), WORDS - 1
    ids = inputs["input_ids"]
    ids[ids == name] = SPECIAL
    ids[:8, 1] = name
    for owners, counts in ((4, False), (5, True)):
        # Eight reports, of four or five subjects.
        subjects = torch.arange(60) + 100
        subjects[:8] = torch.arange(8) % owners
        words = fitted(WordDescriptor(WORDS, 4, pairs=64), inputs, subjects)
        other = {**inputs, "input_ids": torch.where(ids == name, SPECIAL, ids)}
        assert bool(words.idf[name] > 0) is counts  # type: ignore[operator]
        assert bool(words.directions[:, name].any()) is counts
        counted = word_counts(ids[:8], inputs["attention_mask"][:8], torch.arange(SPECIAL), WORDS, 64)
        if not counts:
            assert not words.measure({k: v[:8] for k, v in inputs.items()})[:, name].any()
            assert counted[:, name].all()
        else:
            assert not torch.allclose(words(inputs)[:8], words(other)[:8], atol=1e-3)


def test_a_masked_word_is_not_counted() -> None:
    inputs = reports()
    words = fitted(WordDescriptor(WORDS, 4, pairs=16, min_subjects=1), inputs)
    ids = inputs["input_ids"]
    masked = {**inputs, "input_ids": ids.index_put((torch.arange(60), torch.full((60,), 2)), torch.tensor(4))}
    changed = ids.clone()
    changed[:, 2] = SPECIAL + (changed[:, 2] + 5) % (WORDS - SPECIAL)
    masked_too = {**inputs, "input_ids": changed.index_put((torch.arange(60), torch.full((60,), 2)), torch.tensor(4))}
    torch.testing.assert_close(words(masked), words(masked_too))
    assert not torch.allclose(words(masked), words(inputs), atol=0.01)


def test_edges_of_a_radiograph_are_whitened_components_of_its_hog() -> None:
    images = torch.rand(40, 1, 32, 24, generator=torch.Generator().manual_seed(0))
    edges = fitted(XrayDescriptor(3), images)
    x = np.stack([xray_features(image[0].numpy()) for image in images])
    oracle = PCA(3, whiten=True, svd_solver="full").fit_transform(StandardScaler().fit_transform(x))
    # scikit-learn divides by n - 1.
    assert_same_up_to_sign(edges(images), oracle * np.sqrt(40 / 39), atol=5e-3)


def test_measures_of_a_ct_are_in_hu_and_mm_and_standardised() -> None:
    draw = torch.Generator().manual_seed(0)
    radius, at = 2 + 4 * torch.rand(30, 1, 1, 1, generator=draw), torch.arange(16.0) - 7.5
    distance = (at[:, None, None] ** 2 + at[:, None] ** 2 + at**2).sqrt()
    hu = torch.where(distance < radius, 40.0, -850.0) + 30 * torch.randn(30, 16, 16, 16, generator=draw)
    inputs = ((hu + 1000) / 1400).clamp(0, 1)[:, None]
    sizes = fitted(CTDescriptor((-1000, 400), (0.5, 1, 2)), inputs)
    # What is filled up around a scan is not of it, with some noise on it neither.
    padded = torch.nn.functional.pad(inputs, (3, 0, 2, 5, 0, 4))
    padded[:, :, -1, 0, 0] = 0.2
    torch.testing.assert_close(sizes(padded), sizes(inputs))
    x = np.stack([ct_features(volume, (0.5, 1, 2)) for volume in hu.clamp(-1000, 400).double().numpy()])
    expected = StandardScaler().fit_transform(x)
    # What is the same in every volume, such as its field of view, says nothing.
    varies = x.std(0) > 1e-6
    assert not varies[-4:].any() and not sizes(inputs)[:, ~varies].any()
    np.testing.assert_allclose(sizes(inputs)[:, varies].numpy(), expected[:, varies], atol=5e-3)


class Halves(Descriptor):
    """The mean of the first and of the second half of a vector."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.seen: list[Tensor] = []

    def measure(self, inputs: Tensor) -> Tensor:  # type: ignore[override]
        return inputs.unflatten(1, (2, -1)).mean(-1)

    def see(self, inputs: Tensor, subjects: Tensor) -> None:  # type: ignore[override]
        self.seen.append(subjects)

    def learn(self) -> None:
        self._fit(np.eye(2), np.zeros(2))


def halves_batch() -> Batch:
    present = torch.tensor([[1, 0], [1, 1], [0, 1]]).bool()
    x = torch.arange(8.0).reshape(2, 4)
    return Batch(
        {"ct": x, "xray": x}, present, ("ct", "xray"), ("a", "b", "c"), torch.tensor([7, 8, 9]), torch.arange(3)
    )


def test_descriptors_are_fitted_once_to_the_studies_that_have_the_modality() -> None:
    descriptors, batch = Descriptors({"xray": Halves()}), halves_batch()
    part = Encoded(torch.ones(2, 1, 3), torch.ones(2, 1).bool(), torch.ones(2, 3))
    before = descriptors.beside("xray", part, batch.inputs["xray"], whole=True).pooled
    assert not before[:, :2].any()
    for _ in range(2):
        descriptors.fit([batch])
    assert torch.equal(torch.cat(descriptors["xray"].seen), torch.tensor([8, 9]))  # type: ignore[arg-type]
    pooled = descriptors.beside("xray", part, batch.inputs["xray"], whole=True).pooled
    torch.testing.assert_close(pooled, torch.tensor([[0.5, 2.5, 1, 1, 1], [4.5, 6.5, 1, 1, 1]]))
    # Of some tokens alone, what is measured of all would tell of the rest.
    assert not descriptors.beside("xray", part, batch.inputs["xray"], whole=False).pooled[:, :2].any()
    assert descriptors.beside("ct", part, batch.inputs["ct"], whole=True) is part
    assert descriptors.width("xray") == 2 and descriptors.width("ct") == 0


def test_too_few_studies_leave_a_descriptor_to_be_fitted_later() -> None:
    words, inputs = WordDescriptor(WORDS, 4, min_subjects=1), reports(60)
    words.see({k: v[:1] for k, v in inputs.items()}, torch.zeros(1))
    words.learn()
    images = XrayDescriptor(2)
    images.see(torch.rand(1, 1, 8, 8), torch.zeros(1))
    images.learn()
    assert not words.fitted and not images.fitted and not words(inputs).any()
    fitted(words, inputs)
    assert words.fitted and words(inputs).std() > 0.5


def test_a_word_that_training_never_had_and_an_empty_report_are_finite() -> None:
    inputs = reports()
    inputs["input_ids"][inputs["input_ids"] == WORDS - 1] = SPECIAL
    words = fitted(WordDescriptor(WORDS, 4, pairs=16, min_subjects=1), inputs)
    odd = {
        "input_ids": torch.tensor([[2, WORDS - 1, 3], [2, 3, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
    }
    assert torch.isfinite(words(odd)).all()
    torch.testing.assert_close(words(odd)[0], words(odd)[1])


def test_fewer_directions_than_components_leave_the_others_at_0() -> None:
    images = torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    edges = fitted(XrayDescriptor(6), images)
    values = edges(images)
    assert (values.std(0)[:3] > 0.5).all() and not values[:, 3:].any()


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="components is 0, expected 1 to 1584"):
        XrayDescriptor(0)
    with pytest.raises(ValueError, match="low before high"):
        CTDescriptor((400, -1000))
    with pytest.raises(ValueError, match="expected a dict of input_ids"):
        WordDescriptor(WORDS, 4)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="a token 31 of a vocabulary of 30; fix: vocab_size"):
        WordDescriptor(WORDS, 4)({"input_ids": torch.tensor([[2, 31]]), "attention_mask": torch.ones(1, 2)})
    with pytest.raises(ValueError, match=r"expected images \(n, 1, \*size\)"):
        CTDescriptor()({"input_ids": torch.zeros(1, 1)})
