"""PrincipalComponentsd: images on the whitened components of the training studies, which a saved model brings along."""

from __future__ import annotations

import base64
import tracemalloc
import zlib

import numpy as np
import pytest
import torch

from medssml.config import build, describe
from medssml.transforms import LoadCTd, PrincipalComponentsd, Road, principal_components
from medssml.transforms.road import RoadError


def images(n: int = 60, shape: tuple[int, ...] = (1, 3, 4, 5), unit: float = 1.0) -> np.ndarray:
    """Images that vary in a few directions by far more than in the rest."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(6, int(np.prod(shape)))) * np.array([30, 10, 5, 2, 1, 0.5])[:, None]
    noise = rng.normal(size=(n, int(np.prod(shape)))) * 0.1
    return unit * (40 + rng.normal(size=(n, 6)) @ directions + noise).reshape(n, *shape)


def learned(values: np.ndarray, components: int = 5) -> PrincipalComponentsd:
    step = PrincipalComponentsd("ct", components)
    assert step.learn(({"ct": torch.from_numpy(image)} for image in values), None) == []
    return step


def applied(step: PrincipalComponentsd, values: np.ndarray) -> np.ndarray:
    return torch.cat([step({"ct": torch.from_numpy(image)})["ct"] for image in values]).numpy()


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e3])
def test_it_is_the_singular_value_decomposition_in_standard_deviations(unit: float) -> None:
    values = images(unit=unit)
    centred = (values - values.mean(0)).reshape(len(values), -1)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :5] * np.sqrt(len(values) - 1)
    found = applied(learned(values), values)
    assert found.shape == (60, 5) and found.dtype == np.float32
    signs = np.sign((found * expected).sum(0))
    np.testing.assert_allclose(found * signs, expected, atol=0.02)


def test_every_component_weighs_the_same_and_says_something_else() -> None:
    found = applied(learned(images(400)), images(400))
    np.testing.assert_allclose(np.cov(found.T), np.eye(5), atol=0.02)


@pytest.mark.parametrize("n", [60, 63, 64, 65, 70, 127])
def test_chunks_of_studies_give_what_all_at_once_do(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = images(n)
    whole = applied(learned(values, 3), values)
    monkeypatch.setattr(principal_components, "CHUNK", 16)
    chunked = applied(learned(values, 3), values)
    np.testing.assert_allclose(np.abs(chunked), np.abs(whole), atol=0.05)


def test_a_saved_model_brings_the_figures_along() -> None:
    step = learned(images())
    again = build(describe(step))
    image = {"ct": torch.from_numpy(images(1)[0])}
    assert torch.equal(again(image)["ct"], step(image)["ct"])
    again.learn([{"ct": torch.zeros(1, 3, 4, 5)}] * 9, None)
    assert torch.equal(again(image)["ct"], step(image)["ct"]), "what was learned stays"


def test_nothing_is_answered_before_it_has_learned_and_nothing_of_another_size() -> None:
    with pytest.raises(ValueError, match="not known yet"):
        PrincipalComponentsd("ct")({"ct": torch.zeros(1, 3, 4, 5)})
    with pytest.raises(ValueError, match=r"\(1, 3, 4, 6\), learned from images of \(1, 3, 4, 5\)"):
        learned(images())({"ct": torch.zeros(1, 3, 4, 6)})


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([], "0 training study"),
        ([torch.zeros(1, 2, 2)], "1 training study"),
        ([torch.zeros(1, 2, 2), torch.zeros(1, 2, 3)], "bring them to one size"),
        ([torch.zeros(1, 11, 10)] * 5, "110 voxels; at most 100 voxels"),
        ([torch.zeros(1, 9, 9)] * 5, "at most 100 voxels and 200 numbers"),
        ([torch.ones(1, 2, 2)] * 5, "all the same"),
    ],
)
def test_what_it_cannot_learn_from_is_refused(
    rows: list[torch.Tensor], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(principal_components, "MOST", 100)
    monkeypatch.setattr(principal_components, "MOST_FIGURES", 200)
    with pytest.raises(ValueError, match=reason):
        PrincipalComponentsd("ct", 2).learn([{"ct": row} for row in rows], None)


@pytest.mark.parametrize(
    ("values", "found"),
    [(images(4), 3), (images(30)[:, :, :1, :1, :2], 2), (np.stack([k * np.ones((1, 2, 2)) for k in range(9)]), 1)],
)
def test_of_few_or_simple_images_the_components_that_there_are_count_and_the_others_are_0(
    values: np.ndarray, found: int
) -> None:
    step = PrincipalComponentsd("ct", 5)
    said = step.learn([{"ct": torch.from_numpy(image)} for image in values], None)
    assert len(said) == 1 and f"vary in {found} directions; the other {5 - found} of 5 components are 0" in said[0]
    answers = applied(build(describe(step)), values)
    np.testing.assert_allclose(np.cov(answers[:, :found].T), np.eye(found).squeeze(), atol=0.02)
    assert not answers[:, found:].any()


def _text(size: str, shares: np.ndarray, scales: tuple[float, ...] = (1.0, 1.0)) -> str:
    stored = np.array(scales, "<f4").tobytes() + shares.astype("<f2").tobytes()
    return f"{size}:{base64.b64encode(zlib.compress(stored)).decode()}"


def test_the_format_of_the_figures_is_kept() -> None:
    step = PrincipalComponentsd("ct", 1, fitted=_text("2x2", np.array([1, 0, 0, 0, 0.5, 1, 0, 0]), (3.0, 2.0)))
    assert step({"ct": torch.tensor([[4.0, 1.0], [5.0, 5.0]])})["ct"].tolist() == [[3.0]]


@pytest.mark.parametrize(
    "fitted",
    [
        "",
        "2x2:%%%",
        "2x2:" + base64.b64encode(b"no zlib").decode(),
        _text("2x2", np.ones(7)),
        _text("2x2", np.ones(9)),
        _text("2x2", np.full(8, np.nan)),
        _text("2x2", np.ones(8), (1.0, float("inf"))),
        _text("2x2", np.zeros(8)),
        _text("two", np.ones(8)),
    ],
)
def test_damaged_figures_are_refused(fitted: str) -> None:
    with pytest.raises(ValueError, match="fitted is damaged"):
        PrincipalComponentsd("ct", 1, fitted=fitted)


def test_a_text_of_zeros_does_not_fill_the_memory() -> None:
    fitted = _text("2x2", np.zeros(1 << 26))
    tracemalloc.start()
    with pytest.raises(ValueError, match="fitted is damaged"):
        PrincipalComponentsd("ct", 1, fitted=fitted)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 1 << 22


@pytest.mark.parametrize("components", [0, -1])
def test_a_number_of_components_that_says_nothing_is_refused(components: int) -> None:
    with pytest.raises(ValueError, match="components"):
        PrincipalComponentsd("ct", components)


def test_in_a_road_the_refusal_names_the_modality_and_the_step() -> None:
    road = Road("ct", [LoadCTd("ct", (1, 1, 1), (4, 4, 4)), PrincipalComponentsd("ct", 2)])
    with pytest.raises(RoadError, match=r"transforms\.ct: PrincipalComponentsd: 1 training study"):
        road.fit_training([{"hu": np.zeros((4, 4, 4), np.int16)}])
