"""Vectors that other packages learn from: the file, the subsets that are asked, what is chosen; and the peers where they are."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "benchmark_peers.py"
MODALITIES, TASKS = ("ct_a", "xray", "eeg", "report"), ("left", "right", "both", "broad", "interaction")
SUBSETS = np.array([[i in part for i in range(4)] for size in range(1, 5) for part in combinations(range(4), size)])
Array = np.ndarray


@pytest.fixture(scope="module")
def peers() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_peers", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def simulated(counts: tuple[int, int, int] = (60, 30, 20), dim: int = 6, seed: int = 0) -> dict[str, Array]:
    """Ten linear factors, of which each modality sees four; half of it absent; the last task is the product of two factors."""
    rng = np.random.default_rng(seed)
    seen = ((0, 1, 2, 8), (2, 3, 4, 9), (4, 5, 6, 0), (6, 7, 1, 5))
    shown, asked = [rng.normal(size=(4, dim)) for _ in seen], rng.normal(size=(10, 4))
    arrays = {"modalities": np.array(MODALITIES), "tasks": np.array(TASKS), "subsets": SUBSETS}
    for split, count in zip(("train", "validation", "test"), counts, strict=True):
        factors = rng.normal(size=(count, 10))
        present = rng.random((count, 4)) < 0.5
        present[np.arange(count), rng.integers(0, 4, count)] = True
        for column, name in enumerate(MODALITIES):
            x = 5 + 3 * (factors[:, seen[column]] @ shown[column] + rng.normal(size=(count, dim)))
            arrays[f"{split}_{name}"] = np.where(present[:, [column]], x, np.nan).astype(np.float32)
        labels = np.column_stack([factors @ asked > 0, factors[:, 8] * factors[:, 9] > 0]).astype(float)
        arrays[f"{split}_labels"] = np.where(rng.random(labels.shape) < 0.1, np.nan, labels)
    return arrays


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes the simulated file with some arrays changed (None: left out)."""

    def write(**changed: Any) -> Path:
        arrays = {**simulated(), **changed}
        np.savez(tmp_path / "vectors.npz", **{name: x for name, x in arrays.items() if x is not None})
        return tmp_path / "vectors.npz"

    return write


def test_vectors_are_scaled_on_training_studies_and_absent_ones_are_zero(
    peers: ModuleType, written: Callable[..., Path]
) -> None:
    cohort = peers.read(written())
    assert cohort.tasks == TASKS and (cohort.subsets == SUBSETS).all()
    for column, name in enumerate(MODALITIES):
        there = cohort.train.present[:, column]
        np.testing.assert_allclose(cohort.train.vectors[name][there].mean(0), 0, atol=1e-5)
        np.testing.assert_allclose(cohort.train.vectors[name][there].std(0), 1, atol=1e-3)
        given = simulated()
        mean, deviation = np.nanmean(given[f"train_{name}"], 0), np.nanstd(given[f"train_{name}"], 0)
        told = cohort.test.present[:, column]
        expected = (given[f"test_{name}"][told] - mean) / deviation
        np.testing.assert_allclose(cohort.test.vectors[name][told], expected, atol=1e-4)
        assert (told == ~np.isnan(given[f"test_{name}"][:, 0])).all() and 0 < told.sum() < len(told)
        assert not cohort.test.vectors[name][~told].any()


def test_only_training_studies_with_nothing_are_left_out(peers: ModuleType, written: Callable[..., Path]) -> None:
    given = simulated()
    for split in ("train", "test"):
        for name in MODALITIES:
            given[f"{split}_{name}"][3] = np.nan
    cohort = peers.read(written(**given))
    assert len(cohort.train.labels) == 59 and len(cohort.test.labels) == 20
    np.testing.assert_array_equal(cohort.train.labels[3], given["train_labels"][4])


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"test_eeg": None}, KeyError, "no array test_eeg"),
        ({"subsets": SUBSETS[:, :3]}, ValueError, "subsets"),
        ({"subsets": SUBSETS.astype(int)}, ValueError, "expected bool"),
        ({"test_labels": np.full((20, 5), 2.0)}, ValueError, "test_labels"),
        ({"test_xray": np.zeros((19, 6))}, ValueError, "test_xray"),
        ({"train_xray": np.full((60, 6), np.nan)}, ValueError, "no training study has xray"),
        ({"test_xray": np.where(np.arange(120).reshape(20, 6) == 14, np.nan, 1.0)}, ValueError, "row 2 of test_xray"),
    ],
)
def test_a_file_that_is_not_as_said_is_refused(
    peers: ModuleType, written: Callable[..., Path], changed: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        peers.read(written(**changed))


def test_a_study_is_asked_from_what_it_has_of_each_subset(peers: ModuleType, written: Callable[..., Path]) -> None:
    cohort = peers.read(written())
    test = cohort.test

    def ask(studies: Any) -> Array:
        """Which modalities are there, as a binary number, whatever the task."""
        assert studies.present.any(1).all()
        for column, x in enumerate(studies.vectors.values()):
            assert (x.any(1) == studies.present[:, column]).all()
        return np.repeat((studies.present @ (1, 2, 4, 8))[:, None], 5, 1)

    found = peers.answers(ask, test, cohort.subsets)
    assert found.shape == (20, 15, 5)
    had = np.array([[(row & subset) @ (1, 2, 4, 8) for subset in SUBSETS] for row in test.present]).astype(float)
    np.testing.assert_array_equal(found, np.repeat(np.where(had > 0, had, np.nan)[:, :, None], 5, 2))
    assert np.isnan(found).any() and len(np.unique(had)) > 8


def test_auroc_is_the_mean_over_subsets_that_have_both_classes(peers: ModuleType) -> None:
    labels = np.array([[0, 1], [1, 1], [1, 1], [0, np.nan]])
    found = np.array([[0.1, 0.9, np.nan], [0.9, 0.1, 0.3], [0.8, 0.8, 0.4], [0.2, 0.85, np.nan]])[:, :, None].repeat(
        2, 2
    )
    np.testing.assert_allclose(peers.mean_auroc(found, labels), [(1 + 0) / 2, np.nan])


class Rehearsed:
    """Tells the truth with a share of noise that is said for every epoch; counts epochs."""

    def __init__(self, noise: dict[int, float]) -> None:
        self.noise, self.epochs = noise, 0

    def learn(self, epoch: int) -> None:
        self.epochs += 1
        assert epoch == self.epochs

    def ask(self, studies: Any) -> Array:
        rng = np.random.default_rng(0)
        noise = self.noise.get(self.epochs, 1.0)
        truth = np.nan_to_num(studies.labels)
        return truth * (1 - noise) + rng.random(truth.shape) * noise + self.epochs / 1000


def test_the_setting_and_epoch_that_validation_studies_answer_best_are_kept(
    peers: ModuleType,
    written: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(peers, "LOOKS", (2, 4, 6, 8, 10))
    cohort = peers.read(written())
    made = {1.0: {4: 0.8}, 2.0: {3: 0.0, 4: 0.2, 6: 0.9, 10: 0.0}, 3.0: {2: 0.6}}
    found = peers.chosen(lambda setting: Rehearsed(made[setting["x"]]), [{"x": x} for x in made], 8, cohort)
    expected = Rehearsed({4: 0.2})
    expected.epochs = 4
    np.testing.assert_array_equal(found, peers.answers(expected.ask, cohort.test, cohort.subsets))
    assert "{'x': 2.0} after 4 epochs" in capsys.readouterr().out


def test_without_validation_studies_of_both_classes_nothing_is_chosen(
    peers: ModuleType, written: Callable[..., Path]
) -> None:
    cohort = peers.read(written(validation_labels=np.ones((30, 5))))
    with pytest.raises(ValueError, match="left, right"):
        peers.chosen(lambda setting: Rehearsed({}), [{}], 2, cohort)


class Company:
    """In the place of a model: answers with what lies in the batch, and keeps the batches."""

    get_probs: Any = None

    def __init__(self) -> None:
        self.batches: list[Array] = []

    def eval(self) -> None:
        pass

    def predict_step(self, batch: tuple[Any, ...]) -> Any:
        self.batches.append(batch[0][0][:, 0].numpy())
        return batch[0][0][:, 0]


def test_an_asked_study_stands_among_training_studies_and_never_beside_itself(
    peers: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first number of each study's first vector is its own: training 1000 and up."""
    import torch

    monkeypatch.setattr(peers, "BATCH", 10)
    none = np.full(1, np.nan)

    def studies(numbers: Array) -> Any:
        return peers.Split(
            {"a": numbers[:, None].astype(np.float32)},
            np.ones((len(numbers), 1), bool),
            none.repeat(len(numbers))[:, None],
        )

    def stored(Xs: list[Array], y: Array) -> Any:
        kept = type("Stored", (), {})()
        kept.Xs, kept.y = [torch.from_numpy(np.asarray(x, dtype=np.float32)) for x in Xs], torch.from_numpy(y)
        kept.observed_mod_indicator = ~torch.isnan(kept.Xs[0][:, :1])
        assert not y.any(), "labels of training studies must not be looked at"
        return kept

    graph = peers.Graph.__new__(peers.Graph)
    graph.train, graph.seed, graph.dataset, graph.estimator = studies(np.arange(1000, 1030)), 0, stored, Company()
    asked = np.arange(1, 13)
    np.testing.assert_array_equal(graph.ask(studies(asked)), asked[:, None])
    beside = [set(batch[batch >= 1000]) for batch in graph.estimator.batches]
    assert [len(batch) for batch in graph.estimator.batches] == [10, 10, 10]
    assert [len(others) for others in beside] == [6, 6, 6]
    assert sorted(int(n) for batch in graph.estimator.batches for n in batch if n < 1000) == list(asked)


def test_each_model_has_its_array_and_is_written_when_it_is_done(
    peers: ModuleType, written: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "answers.npz"

    def learned(name: str, cohort: Any, seed: int) -> Array:
        if name == "MVAE":
            assert list(np.load(out)) == ["MUSE"]
        return np.full((len(cohort.test.labels), len(cohort.subsets), len(cohort.tasks)), float(seed))

    monkeypatch.setattr(peers, "learned", learned)
    peers.main(written(), out, 7, ["MUSE", "MVAE"])
    found = np.load(out)
    assert list(found) == ["MUSE", "MVAE"]
    assert found["MVAE"].shape == (20, 15, 5) and (found["MVAE"] == 7).all()


def test_models_choose_from_equally_many_settings_and_their_last_epoch_is_looked_at(peers: ModuleType) -> None:
    assert {len(settings) for settings in peers.SETTINGS.values()} == {2}
    assert set(peers.EPOCHS) == set(peers.SETTINGS) and set(peers.EPOCHS.values()) <= set(peers.LOOKS)


def test_neither_medssml_nor_a_peer_is_needed_to_read_and_write() -> None:
    tree = ast.parse(SCRIPT.read_text("utf-8"))
    names = {
        (node.module if isinstance(node, ast.ImportFrom) else alias.name) or ""
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    top = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    top |= {node.module or "" for node in tree.body if isinstance(node, ast.ImportFrom)}
    assert not any(name.split(".")[0] == "medssml" for name in names)
    assert not {"torch", "imml", "multivae"} & {name.split(".")[0] for name in top}
    assert {"imml", "multivae"} <= {name.split(".")[0] for name in names}


@pytest.mark.parametrize("name", ["M3Care", "MUSE", "MVAE", "MMVAE", "MoPoE"])
def test_a_peer_answers_every_subset_of_studies_that_have_something_of_it(
    peers: ModuleType, written: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    pytest.importorskip("imml", reason="the peers have an environment of their own, see pipelines/benchmark_peers.py")
    pytest.importorskip("multivae", reason="the peers have an environment of their own")
    monkeypatch.setitem(peers.EPOCHS, name, 2)
    cohort = peers.read(written())
    found = peers.learned(name, cohort, 0)
    had = np.array([[(row & subset).any() for subset in SUBSETS] for row in cohort.test.present])
    assert found.shape == (20, 15, 5)
    np.testing.assert_array_equal(~np.isnan(found).any(2), had)
    assert found[had].min() >= 0 and found[had].max() <= 1
    # What of a study is shown changes what is said of it.
    several = cohort.test.present.sum(1) > 1
    assert (np.nanstd(found[several], axis=1) > 1e-6).all()
