"""medssml stress on a small simulated cohort with a small model: what it asks, what it keeps, what it says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import medssml
from medssml.evaluation import stress as engine
from medssml.manifest.manifest import Manifest
from medssml.model import MultimodalModel
from medssml.obstacles import Absent, Mispaired, ReportTruncated
from medssml.predictor import load
from medssml.transforms import CTTransform, EEGTransform, ReportTransform, XrayTransform
from medssml.transforms.report import ReportText, text_of
from medssml.verbs.stress import stress

SOME = ("absent", "report_truncated", "ct_dose", "mispaired")
SEVERITIES = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Place:
    """run: a saved model. manifest: its simulated cohort. out: what a sweep over `SOME` wrote."""

    run: Path
    manifest: Path
    out: Path


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    from medssml.verbs.phantom import phantom

    root = tmp_path_factory.mktemp("stress")
    phantom(out=root / "cohort", studies=24, seed=0, missing=0.3, preset="small")
    found = Place(root / "run", root / "cohort" / "manifest.csv", root / "out")
    make_run(found.run, found.manifest)
    assert ask(found, found.out) == found.out
    return found


def make_run(run: Path, manifest: Path) -> None:
    """A model of random weights; its CT is windowed before it is stored, so that damage has to go behind that."""
    import torch

    from medssml.encoders import EEGTransformer, TextEncoder, ViT
    from medssml.fusion import MaskedAttention
    from medssml.model import Task

    torch.manual_seed(0)
    encoders = {
        "ct": ViT(input_size=(16, 16, 16), patch_size=8, dim=16, depth=1, heads=2),
        "xray": ViT(input_size=(32, 32), patch_size=8, dim=16, depth=1, heads=2),
        "eeg": EEGTransformer(dim=16, depth=1, heads=2, patch_samples=50, sfreq=100.0),
        "report": TextEncoder(vocab_size=128, dim=16, depth=1, heads=2, max_length=64),
    }
    fusion = MaskedAttention(modalities=tuple(encoders), dim=16, depth=1, heads=2)
    model = MultimodalModel(encoders, fusion, {"malignant": Task("binary")})
    report = ReportTransform(vocab_size=128, max_length=64)
    table = Manifest.read(manifest)
    texts = [table.source_of(row, "report") for row in range(len(table))]
    report.fit_training([report.prepare(text) for text in texts if text is not None])
    transforms = {
        "ct": CTTransform(spacing=(20, 20, 20), size=(16, 16, 16), margin=0, noise=0, jitter=0),
        "xray": XrayTransform(size=32),
        "eeg": EEGTransform(eval_window_s=5),
        "report": report,
    }
    model.save(run / "model", transforms=transforms)


def ask(place: Place, out: Path, **arguments: Any) -> Any:
    given: dict[str, Any] = {"obstacles": SOME, "severities": SEVERITIES, "split": "all", "bootstrap": 30}
    cache = place.run.parent / "cache"
    return stress(run=str(place.run), manifest=place.manifest, out=out, cache=cache, **{**given, **arguments})


def result_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stress.json").read_text())
    return found


def answers_of(out: Path, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "stress_answers" / f"{name}.json").read_text())
    return found


def labelled(place: Place) -> Manifest:
    return Manifest.read(place.manifest).labelled("malignant")


def test_at_severity_0_every_obstacle_leaves_the_answers_of_predict(place: Place) -> None:
    first = answers_of(place.out, "absent_0")["scores"]["malignant"]
    assert all(answers_of(place.out, f"{name}_0")["scores"]["malignant"] == first for name in SOME)
    table = labelled(place)
    studies = [{m: table.source_of(row, m) for m in table.modalities} for row in range(len(table))]
    by_file = [answer["malignant"] for answer in load(place.run).predict(studies)]
    assert first == pytest.approx(by_file, abs=1e-5)


def test_an_obstacle_is_answered_as_the_damaged_files_are(place: Place) -> None:
    table, predictor = labelled(place), load(place.run)
    damage, preparation = ReportTruncated(1.0), ReportText()
    found = answers_of(place.out, "report_truncated_1")["scores"]["malignant"]
    for row in range(4):
        study = {m: table.source_of(row, m) for m in table.modalities}
        if study["report"] is not None:
            whole = preparation.prepare(study["report"])
            study["report"] = text_of(damage.damaged(whole, str(table.study_ids[row]), preparation)) + "\n"
        assert found[row] == pytest.approx(predictor.predict(study)["malignant"], abs=1e-5)


def test_noise_changes_the_answers_of_those_who_have_the_modality_alone(place: Place) -> None:
    clean, noisy = (np.array(answers_of(place.out, f"ct_dose_{s}")["scores"]["malignant"]) for s in ("0", "1"))
    has = labelled(place).present[:, 0]
    assert (clean[has] != noisy[has]).all()
    assert clean[~has] == pytest.approx(noisy[~has], abs=1e-6)


def test_what_is_absent_is_absent(place: Place) -> None:
    table, obstacle = labelled(place), Absent(1.0)
    obstacle.fit(table)
    bits = obstacle.present(table) @ (1 << np.arange(4))
    assert answers_of(place.out, "absent_1")["left"] == bits.tolist()
    last = result_of(place.out)["tasks"]["malignant"]["obstacles"]["absent"]["points"][-1]
    assert last["left"] == pytest.approx(obstacle.present(table).sum() / table.present.sum())


def test_the_best_from_what_is_left_is_that_of_the_truth(place: Place) -> None:
    from medssml.statistics.metrics import auroc, point

    truth = pd.read_csv(place.manifest.parent / "truth.csv").set_index("study_id")
    table, left = labelled(place), answers_of(place.out, "absent_0.5")["left"]
    names = ["+".join(m for at, m in enumerate(table.modalities) if mask >> at & 1) for mask in left]
    best = [truth.loc[study, f"bayes_malignant__{name}"] for study, name in zip(table.study_ids, names, strict=True)]
    found = result_of(place.out)["tasks"]["malignant"]["obstacles"]["absent"]["points"][1]
    assert found["bayes"]["of"] == "what is left"
    assert found["bayes"]["auroc"]["estimate"] == pytest.approx(
        point(auroc, table.targets["malignant"], np.array(best))
    )
    gap = found["bayes"]["auroc"]["estimate"] - found["auroc"]["estimate"]
    assert found["bayes"]["gap"]["estimate"] == pytest.approx(gap)


def test_several_at_once_are_answered_as_the_studies_that_all_of_them_leave(place: Place, tmp_path: Path) -> None:
    """Absence, exchange and damage in one: row by row as files; at severity 0 nothing."""
    name = "absent=0.5+mispaired=0.8+report_truncated"
    ask(place, tmp_path, obstacles=[name], severities=[0.0, 1.0])
    table, predictor, preparation = labelled(place), load(place.run), ReportText()
    absent, moved = Absent(0.5), Mispaired(0.8)
    absent.fit(table)
    left = moved.applied(absent.applied(table))
    origin = moved.partners(absent.applied(table))[:, left.modalities.index("report")]
    assert (left.present != table.present).any() and (origin != np.arange(len(table)))[origin >= 0].any()
    found = answers_of(tmp_path, f"{name}_1")["scores"]["malignant"]
    for row in range(len(left)):
        study = {m: left.source_of(row, m) for m in left.modalities}
        if study["report"] is not None:
            whole, own = preparation.prepare(study["report"]), str(table.study_ids[origin[row]])
            study["report"] = text_of(ReportTruncated(1.0).damaged(whole, own, preparation)) + "\n"
        assert found[row] == pytest.approx(predictor.predict(study)["malignant"], abs=1e-5)
    clean = answers_of(tmp_path, f"{name}_0")["scores"]["malignant"]
    assert clean == answers_of(place.out, "absent_0")["scores"]["malignant"]
    entry = result_of(tmp_path)["tasks"]["malignant"]["obstacles"][name]
    assert entry["points"][-1]["bayes"]["of"] == "what is left" and "absent at random; one modality" in entry["says"]
    assert "absent=0.5+mispaired=0.8+report truncated" in (tmp_path / "stress.html").read_text()


def test_at_some_sites_the_others_answer_as_before(place: Place, tmp_path: Path) -> None:
    """The sites of a column: here of two, one suffers."""
    table = pd.read_csv(place.manifest, dtype=str, keep_default_na=False)
    table["group_site"] = ["north", "south"] * (len(table) // 2)
    manifest = place.manifest.with_name("by_site.csv")
    table.to_csv(manifest, index=False)
    sited = Place(place.run, manifest, tmp_path)
    ask(sited, tmp_path, obstacles=["ct_dose@0.5", "absent@0.5"], severities=[1.0])
    site, has = labelled(sited).table["group_site"].to_numpy(), labelled(sited).present
    for name, concerned in (("ct_dose", has[:, 0]), ("absent", has.sum(1) > 1)):
        clean, hit = (np.array(answers_of(tmp_path, f"{name}@0.5_{s}")["scores"]["malignant"]) for s in (0, 1))
        changed = ~np.isclose(clean, hit, atol=1e-6)
        assert len(set(site[changed])) == 1 and changed[concerned & (site == site[changed][0])].all()


def test_cost_and_area_follow_from_the_curve(place: Place) -> None:
    for found in result_of(place.out)["tasks"]["malignant"]["obstacles"].values():
        curve = [point["auroc"]["estimate"] for point in found["points"]]
        assert [point["cost"]["estimate"] for point in found["points"]] == pytest.approx([curve[0] - v for v in curve])
        assert found["area"]["estimate"] == pytest.approx((curve[0] + 2 * curve[1] + curve[2]) / 4)
        assert all(point["n"] == len(labelled(place)) for point in found["points"])


def test_what_is_done_is_not_asked_again(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, float]] = []
    answer = engine.answered

    def counted(tested: Any, obstacle: Any, tasks: Any) -> Any:
        asked.append((obstacle.name, obstacle.severity))
        return answer(tested, obstacle, tasks)

    monkeypatch.setattr(engine, "answered", counted)
    ask(place, tmp_path, obstacles=["absent"])
    assert asked == [("absent", s) for s in SEVERITIES]
    before = result_of(tmp_path)
    (tmp_path / "stress_answers" / "absent_1.json").write_text("{")  # cut off in the middle
    ask(place, tmp_path, obstacles=["absent"])
    assert asked[3:] == [("absent", 1.0)]
    assert result_of(tmp_path) == before
    ask(place, tmp_path, obstacles=["absent"], severities=[0.0, 0.25, 1.0])
    assert asked[4:] == [("absent", 0.25)]
    ask(place, tmp_path, obstacles=["absent"], seed=1)
    assert asked[5:] == [("absent", s) for s in SEVERITIES]


def test_what_these_studies_cannot_meet_is_said(place: Place, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    ask(place, tmp_path, obstacles=["eeg_mains", "table_values_lost", "absent"])
    reasons = {
        "eeg_mains": "the road's filter takes the 50 Hz of the mains away",
        "table_values_lost": "no study has table",
    }
    assert result_of(tmp_path)["left_out"] == reasons
    said = capsys.readouterr().out
    assert "not asked: eeg_mains" in said and "severities 0, 0.5, 1; seed 0" in said
    with pytest.raises(ValueError, match="no obstacle is left: eeg_mains: the road's filter"):
        ask(place, tmp_path, obstacles=["eeg_mains"])


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        ({"obstacles": ["absnt"]}, KeyError, "no obstacle 'absnt'.*absent"),
        ({"obstacles": ["labels_hidden"]}, ValueError, "what a model is taught, and not what it is asked; fix"),
        ({"obstacles": ["class_scarce"]}, ValueError, "class_scarce befalls what a model is taught"),
        ({"obstacles": ["absent+labels_symmetric"]}, ValueError, "labels_symmetric befalls what a model is taught"),
        ({"obstacles": ["ct_dose:taught"]}, ValueError, "ct_dose:taught befalls what a model is taught"),
        ({"severities": [0.5, 1.5]}, ValueError, "--severities is 1.5; fix"),
        ({"task": "covid"}, KeyError, "the model has no task 'covid'"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    place: Place, tmp_path: Path, arguments: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        ask(place, tmp_path, **arguments)
    assert not (tmp_path / "stress.json").exists()


def test_the_page_has_a_curve_with_its_n_for_every_obstacle(place: Place) -> None:
    page = (place.out / "stress.html").read_text()
    for name in ("absent", "report truncated", "CT dose", "mispaired"):
        assert f"{name}, n = {len(labelled(place))}: AUROC by severity" in page
    assert "Bayes predictor" in page and "seed 0" in page
    assert page.count("<svg") == len(SOME)


def test_in_python_the_result_is_a_table(place: Place) -> None:
    found = medssml.stress(
        run=place.run, manifest=place.manifest, out=place.out, obstacles=SOME, severities=SEVERITIES, split="all",
        bootstrap=30, cache=place.run.parent / "cache",
    )  # fmt: skip
    assert set(found.table["obstacle"]) == set(SOME)
    assert {"severity", "auroc", "auroc_low", "cost", "ece", "left"} <= set(found.table.columns)
    assert len(found.table) == len(SOME) * len(SEVERITIES)


def test_a_road_from_its_loader_gives_the_same_tensors(place: Place) -> None:
    transforms: dict[str, Any] = load(place.run).transforms
    table = Manifest.read(place.manifest)
    check: Callable[[Any], Any] = lambda value: value if isinstance(value, dict) else {"": value}  # noqa: E731
    for name, road in transforms.items():
        row = int(np.flatnonzero(table.present[:, table.modalities.index(name)])[0])
        source, bare = table.source_of(row, name), road.from_loader()
        whole, again = check(road(road.prepare(source))), check(bare(bare.prepare(source)))
        assert all(bool((whole[part] == again[part]).all()) for part in whole)
        assert bare.spec() == road.loader.preparation.spec(type(road.loader).__name__)


def test_a_mispaired_study_is_answered_as_its_row_with_the_other_cells_is(place: Place) -> None:
    table = labelled(place)
    moved = Mispaired(1.0, 0).applied(table)
    assert (moved.table["ct"] != table.table["ct"]).any()
    studies = [{m: moved.source_of(row, m) for m in moved.modalities} for row in range(len(moved))]
    by_file = [answer["malignant"] for answer in load(place.run).predict(studies)]
    found = answers_of(place.out, f"mispaired_{max(SEVERITIES):g}")["scores"]["malignant"]
    assert found == pytest.approx(by_file, abs=1e-5) and max(SEVERITIES) == 1
