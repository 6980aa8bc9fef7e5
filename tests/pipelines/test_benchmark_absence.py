"""Remedies against absence in one table: what is measured, that every row learns and answers, and what the peers are given."""

from __future__ import annotations

import importlib.util
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scipy.special import logit

from medssml.batch import Encoded
from medssml.evaluation.bayes import bayes_by_subset, known_truth
from medssml.evaluation.encoded_studies import EncodedStudies, bits, subset_name, subsets
from medssml.manifest.manifest import Manifest
from medssml.standardise import FIRST, Standardise
from medssml.statistics.metrics import auroc
from medssml.trainers.callback import Outcome

FOLDER = Path(__file__).parents[2] / "pipelines"
NAMES, WIDTH = ("ct", "xray", "eeg", "report"), 8


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location("benchmark_absence", FOLDER / "benchmark_absence.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["benchmark_absence"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(FOLDER))
    return module


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medssml.verbs.phantom import phantom

    out = tmp_path_factory.mktemp("absence") / "cohort"
    phantom(out=out, studies=160, missing=0.0, preset="small", workers=1)
    return out / "manifest.csv"


@pytest.fixture(scope="module")
def bench(benchmark: ModuleType, manifest: Path) -> object:
    """Vectors that are noise beside the label of malignant, in the place of those of a pretrained model."""
    rng, table = np.random.default_rng(0), Manifest.read(manifest)
    tasks, studies, tables = list(table.tasks), {}, {}
    for split in ("train", "val", "test"):
        part = tables[split] = table.split(split)
        raw = {m: torch.tensor(rng.normal(size=(len(part), WIDTH)), dtype=torch.float32) for m in NAMES}
        raw["ct"][:, 0] += torch.tensor(5 * part.targets["malignant"], dtype=torch.float32)
        studies[split] = EncodedStudies(
            {m: Encoded(x[:, None], torch.ones(len(x), 1, dtype=torch.bool), x) for m, x in raw.items()},
            torch.ones(len(part), 4, dtype=torch.bool),
            NAMES,
            tuple(map(str, part.study_codes)),
            np.unique(part.subject_ids, return_inverse=True)[1],
            dict(part.targets),
            {m: np.arange(len(part)) for m in NAMES},
            raw,
        )
    scale = torch.nn.ModuleDict({m: Standardise(WIDTH) for m in NAMES})
    for _ in range(FIRST):  # as a pretraining leaves it: it follows no further batch
        for name, layer in scale.items():
            layer.follow(studies["train"].raw[name])
    cohort = benchmark.Cohort(studies, tables, tasks, scale)
    truth = known_truth(manifest, None)
    assert truth is not None
    return benchmark.Bench(cohort, truth, 0)


def best(bench: object) -> np.ndarray:
    """(N, 2^M, T) logits of the best possible answers."""
    test = bench.cohort.studies["test"]  # type: ignore[attr-defined]
    out = np.zeros((len(test), 16, len(bench.cohort.tasks)))  # type: ignore[attr-defined]
    for k, task in enumerate(bench.cohort.tasks):  # type: ignore[attr-defined]
        found = bayes_by_subset(bench.truth, test.study_id, task, NAMES)  # type: ignore[attr-defined]
        assert found is not None
        for mask in subsets(NAMES)[1:]:
            out[:, mask, k] = logit(np.clip(found[subset_name(mask, NAMES)], 1e-9, 1 - 1e-9))
    return out


def test_the_best_possible_answers_have_no_gap_and_turned_round_they_have_twice_what_they_are_above_chance(
    benchmark: ModuleType, bench: object
) -> None:
    answers = best(bench)
    found = benchmark.measured(bench, answers, benchmark.MNAR)
    assert found["gap"] == pytest.approx(0, abs=1e-9) and found["worst_gap"] == pytest.approx(0, abs=1e-9)
    assert found["gap_same"] == pytest.approx(0, abs=1e-9) == found["gap_reversed"]
    turned = benchmark.measured(bench, -answers, benchmark.MCAR)
    assert turned["gap_complete"] > 0.3 and "gap_same" not in turned
    assert set(turned["by_task"]) == set(bench.cohort.tasks)  # type: ignore[attr-defined]


def test_what_absence_leaves_of_a_study_is_what_it_is_asked_from(benchmark: ModuleType, bench: object) -> None:
    """Only the answers from what is left are right: the gap of all subsets is large, and that of what is left is none."""
    answers = -best(bench)
    left = bits(bench.present("test", benchmark.MNAR, True))  # type: ignore[attr-defined]
    rows = np.arange(len(answers))
    answers[rows, left] = -answers[rows, left]
    found = benchmark.measured(bench, answers, benchmark.MNAR)
    assert found["gap_reversed"] == pytest.approx(0, abs=1e-9)
    assert found["gap_same"] > 0.05 and found["gap"] > 0.2


def test_surer_without_being_right_more_often_is_counted(benchmark: ModuleType) -> None:
    sure, right = {("t", 1): 0.9, ("t", 2): 0.6, ("t", 3): 0.8}, {("t", 1): 0.7, ("t", 2): 0.7, ("t", 3): 0.7}
    assert benchmark.surer(sure, right, ["t"], [1, 2, 3]) == 0.5, "of the two removals from both, one"
    assert benchmark.surer(sure, right | {("t", 1): 0.8}, ["t"], [1, 2, 3]) == 0


def test_half_of_training_is_absent_and_all_of_it_is_there_where_nothing_is_to_go(
    benchmark: ModuleType, bench: object
) -> None:
    assert bench.present("train", benchmark.COMPLETE).all()  # type: ignore[attr-defined]
    for pattern in (benchmark.MCAR, benchmark.MNAR):
        present = bench.present("train", pattern)  # type: ignore[attr-defined]
        assert present.any(1).all() and 0.4 < present.mean() < 0.6
    label = bench.cohort.table["train"].targets["malignant"] == 1  # type: ignore[attr-defined]
    there = bench.present("train", benchmark.MNAR)  # type: ignore[attr-defined]
    assert there[label].mean() > there[~label].mean() + 0.1
    turned = bench.present("train", benchmark.MNAR, True)  # type: ignore[attr-defined]
    assert turned[label].mean() < turned[~label].mean() - 0.1


@pytest.mark.slow
def test_every_row_learns_and_answers_every_subset(
    benchmark: ModuleType, bench: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "EPOCHS", 1)
    test = bench.cohort.studies["test"]  # type: ignore[attr-defined]
    for name, row in benchmark.ROWS.items():
        answers = benchmark.learned(bench, row, benchmark.MCAR, tmp_path / name)
        assert answers.shape == (len(test), 16, 5) and np.isfinite(answers).all(), name
        assert np.ptp(answers[:, 1:, 0], axis=1).min() > 0, f"{name}: all subsets are answered alike"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["AdditiveFusion(depth=0)", "FactorFusion, weights by presence"])
def test_what_the_ct_shows_is_learned_of_incomplete_studies(
    benchmark: ModuleType, bench: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(benchmark, "SIZE", 16)
    monkeypatch.setattr(benchmark, "EPOCHS", 60)
    test = bench.cohort.studies["test"]  # type: ignore[attr-defined]
    for answers in (
        benchmark.learned(bench, benchmark.ROWS[name], benchmark.MCAR, tmp_path),
        benchmark.classical(bench, benchmark.MCAR, False),
    ):
        ct = answers[:, 1 << test.modalities.index("ct"), 0].astype(float)
        assert auroc(test.targets["malignant"], ct, np.ones((1, len(test))))[0] > 0.9


def test_peers_are_given_what_is_there_and_their_answers_come_back_in_place(
    benchmark: ModuleType, bench: object, tmp_path: Path
) -> None:
    benchmark.export(bench, benchmark.MCAR, tmp_path / "vectors.npz")
    with np.load(tmp_path / "vectors.npz") as given:
        there = bench.present("train", benchmark.MCAR)  # type: ignore[attr-defined]
        for column, name in enumerate(NAMES):
            assert np.array_equal(np.isfinite(given[f"train_{name}"]).all(1), there[:, column])
            assert np.isfinite(given[f"test_{name}"]).all()
        asked = [int(row @ (1 << np.arange(4))) for row in given["subsets"]]
        assert given["train_labels"].shape[1] == 5
    probabilities = np.full((3, 15, 2), 0.5)
    probabilities[:, asked.index(5), 1] = 0.9
    logits = benchmark._of_peer(probabilities, bench)
    assert logits[0, 5, 1] == pytest.approx(logit(0.9)) and np.count_nonzero(np.abs(logits) > 1e-9) == 3


def test_a_training_that_is_stopped_is_not_measured(
    benchmark: ModuleType, bench: object, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import on_vectors

    monkeypatch.setattr(on_vectors, "fit", lambda *_, **__: Outcome("stopped", 75, 1, 0.0))
    monkeypatch.setattr(benchmark, "read", lambda *_: bench.cohort)  # type: ignore[attr-defined]
    args = Namespace(
        out=tmp_path, checkpoint="", manifest=manifest, cache=tmp_path, seed=0, pattern=[benchmark.MCAR],
        model=["ConcatFusion"], run=[], export=None, answers=None, labels=1.0,
    )  # fmt: skip
    with pytest.raises(SystemExit, match="75"):
        benchmark.main(args)
    assert not (tmp_path / "absence.jsonl").exists()


@pytest.mark.slow
def test_what_is_measured_already_is_not_measured_again(
    benchmark: ModuleType, bench: object, manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "read", lambda *_: bench.cohort)  # type: ignore[attr-defined]
    args = Namespace(
        out=tmp_path, checkpoint="", manifest=manifest, cache=tmp_path, seed=0, pattern=[benchmark.COMPLETE],
        model=["zeros and flags"], run=[], export=None, answers=None, labels=1.0,
    )  # fmt: skip
    benchmark.main(args)
    first = (tmp_path / "absence.jsonl").read_text()
    benchmark.main(args)
    assert (tmp_path / "absence.jsonl").read_text() == first
    (row,) = map(json.loads, first.splitlines())
    assert (row["model"], row["pattern"], row["labels"]) == ("zeros and flags", "complete", 1.0)
    args.labels = 0.5
    benchmark.main(args)
    again = [json.loads(line) for line in (tmp_path / "absence.jsonl").read_text().splitlines()]
    assert [row["labels"] for row in again] == [1.0, 0.5]


def test_fewer_labels_are_those_of_a_share_of_the_subjects(benchmark: ModuleType, bench: object) -> None:
    whole = bench.cohort  # type: ignore[attr-defined]
    half, quarter = (benchmark.with_labels_of(whole, share, 0) for share in (0.5, 0.25))
    for part, share in ((half, 0.5), (quarter, 0.25)):
        kept = set(part.table["train"].subject_ids)
        assert len(kept) == round(share * len(set(whole.table["train"].subject_ids)))
        assert tuple(map(str, part.table["train"].study_codes)) == part.studies["train"].study_id
        assert part.studies["test"] is whole.studies["test"]
    assert set(quarter.studies["train"].study_id) < set(half.studies["train"].study_id)
    ct = dict(zip(whole.studies["train"].study_id, whole.studies["train"].raw["ct"], strict=True))
    assert all(
        torch.equal(x, ct[s])
        for s, x in zip(half.studies["train"].study_id, half.studies["train"].raw["ct"], strict=True)
    )
