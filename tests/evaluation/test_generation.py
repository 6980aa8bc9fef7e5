"""Written reports: the report is never shown, only the studies that show something are written of, and scores."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from medssml.drafts import Drafting
from medssml.evaluation.generation import (
    best_decisions,
    best_possible_f1,
    generation_scores,
    simulated_scores,
    unfounded_rates,
    write_reports,
)
from medssml.objectives import Captioning
from medssml.phantom import population
from medssml.phantom.causes import GRADE_EDGES, grade
from medssml.phantom.report import LADDER, findings_of, report
from medssml.phantom.truth import stated
from medssml.predictor import Predictor
from medssml.statistics.text_metrics import finding_f1
from tests.examples import batch_of, ten_studies, tiny_model


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    model = tiny_model().eval()
    torch.manual_seed(2)
    captioning = Captioning(model, dim=16, depth=1, heads=2).eval()
    with torch.no_grad():
        captioning.decoder.words.weight.mul_(40)
    model.keep(captioning.kept())
    words = SimpleNamespace(vocabulary=SimpleNamespace(decode=lambda ids: " ".join(f"w{i}" for i in ids if i > 5)))
    return Predictor(model, {"report": words})


def test_each_study_that_shows_something_is_written_of_and_its_report_is_not_shown(predictor):
    written = write_reports(predictor, [batch_of(ten_studies()[:5]), batch_of(ten_studies()[5:])])
    having = {0: "ct+xray+eeg", 1: "ct", 2: "eeg", 3: "ct+eeg", 5: "xray", 6: "ct+xray", 7: "ct+xray", 9: "xray+eeg"}
    assert dict(zip(written.study_id, written.subset, strict=True)) == {f"study-{n}": s for n, s in having.items()}
    with_report = written.reference.notna()
    assert written.study_id[with_report].tolist() == [f"study-{n}" for n in (0, 1, 5, 6)]
    ids = ten_studies()[1]["inputs"]["report"].tolist()
    assert written.reference[1] == " ".join(f"w{i}" for i in ids if i > 5)

    model = predictor.model
    bare = batch_of(ten_studies()).without("report")
    expected = predictor.written(model.fuse(model.encode(bare), bare.present))
    assert written.report.tolist() == [text for row, text in enumerate(expected) if row in having]
    some = write_reports(predictor, [batch_of(ten_studies())], mask=0b1010, beams=2)
    assert set(some.subset) == {"xray"} and len(some) == 5


def test_findings_are_read_from_any_text_of_the_grammar():
    for finding, ladder in LADDER.items():
        for step, wordings in enumerate(ladder):
            for wording in wordings:
                assert findings_of(wording.upper().replace(".", " ,")) == {finding: step >= 3}, wording
    text = "findings: small effusions are present. no focal lung lesion. impression: 1. mild cardiomegaly."
    assert findings_of(text) == {"effusion": True, "nodule": False, "cardiomegaly": True}
    assert findings_of("nodule of uncertain") == {}


def test_scores_of_equal_texts_and_of_other_findings():
    same = ["No pleural effusion. Suspicious nodule."]
    scores = generation_scores(same, same, findings_of)
    assert scores["bleu"] == scores["rouge_l"] == scores["f1_micro"] == scores["f1_nodule"] == pytest.approx(1)
    assert generation_scores(["Small effusions are present."], same, findings_of)["f1_micro"] == 0
    assert set(generation_scores(same, same)) == {"bleu", "rouge_l", "cider"}


def test_decisions_have_the_highest_expected_f1_of_all():
    draw = np.random.default_rng(0)
    for _ in range(20):
        p = draw.random(7) ** 2
        expected = dict.fromkeys(range(1, 128), 0.0)
        for mask in expected:
            decided = np.array([bool(mask >> j & 1) for j in range(7)])
            expected[mask] = 2 * p[decided].sum() / (decided.sum() + p.sum())
        found = best_decisions(p)
        assert expected[int(found @ (1 << np.arange(7)))] == pytest.approx(max(expected.values()))


def test_nobody_meets_the_reports_better_than_who_knows_what_is_shown():
    people = population(3000, seed=1)
    draw = np.random.default_rng(0)
    grades = {f: grade(f, people[f"evidence_report_{f}"].to_numpy()) for f in GRADE_EDGES}
    texts = [report({f: int(g[n]) for f, g in grades.items()}, 60, False, draw) for n in range(len(people))]
    subset = np.where(np.arange(len(people)) % 2, "ct+eeg", "xray")
    people.index = people.index.astype(str)
    written = pd.DataFrame({"study_id": people.index, "subset": subset, "reference": texts})
    best = best_possible_f1(people, written)

    truth = [findings_of(text) for text in texts]
    shown = {f: np.where(subset == "xray", stated(people, f, "xray"), stated(people, f, "ct")) for f in GRADE_EDGES}
    others = [
        finding_f1([{f: bool(p[n] > cut) for f, p in shown.items()} for n in range(len(people))], truth)["micro"]
        for cut in np.linspace(0.05, 0.95, 19)
    ]
    assert 0.5 < best < 1 and best > max(others) - 0.01
    blind = finding_f1([dict.fromkeys(GRADE_EDGES, True)] * len(people), truth)["micro"]
    assert best > blind + 0.05


def test_reports_are_settled_from_drafts_and_a_study_from_its_own_alone(predictor):
    drafting = Drafting(3)
    whole = write_reports(predictor, [batch_of(ten_studies())], drafting=drafting)
    alone = write_reports(predictor, [batch_of([ten_studies()[1]])], drafting=drafting)
    assert alone.report[0] == whole.report[1]
    model, bare = predictor.model, batch_of([ten_studies()[1]]).without("report")
    fused = model.fuse(model.encode(bare), bare.present)
    decoder = model.kept["decoder"]
    texts = [predictor.words(ids) for ids in decoder.draft(fused.tokens, fused.mask, 3)[0].tolist()]
    assert alone.report[0] == drafting.settle(texts, [])

    seen = []

    def rule(text: str) -> dict[str, bool]:
        seen.append(text)
        return {}

    write_reports(predictor, [batch_of([ten_studies()[1]])], drafting=Drafting(3, rule))
    nothing = decoder.draft(fused.tokens[:, :0], fused.mask[:, :0], 3)[0].tolist()
    assert seen == texts + [predictor.words(ids) for ids in nothing]


def test_what_nothing_shown_bears_on_counts_as_made_up():
    rows = [
        ("eeg", "Small effusions are present. No focal lung lesion."),  # one there, one said to be absent, of three
        ("ct+eeg", "Small effusions are present."),  # the CT bears on all of them
        ("eeg", ""),
    ]
    written = pd.DataFrame(rows, columns=["subset", "report"])
    assert unfounded_rates(written) == {"hallucinated": pytest.approx(1 / 6), "unfounded": pytest.approx(2 / 6)}
    assert all(np.isnan(rate) for rate in unfounded_rates(written[1:2]).values())


def test_the_scores_of_simulated_studies_have_a_floor_and_a_ceiling():
    people = population(400, seed=2)
    people.index = people.index.astype(str)
    draw = np.random.default_rng(0)
    grades = {f: grade(f, people[f"evidence_report_{f}"].to_numpy()) for f in GRADE_EDGES}
    texts = [report({f: int(g[n]) for f, g in grades.items()}, 60, False, draw, brief=True) for n in range(400)]
    written = pd.DataFrame({"study_id": people.index, "subset": "ct", "report": texts, "reference": texts})
    written.loc[5, "reference"] = None
    scores = simulated_scores(people, written)
    assert set(scores) == {"best_possible_f1_micro", "f1_micro_of_stating_all"}  # the CT bears on every finding
    there = np.mean([list(findings_of(text).values()) for n, text in enumerate(texts) if n != 5])
    assert scores["f1_micro_of_stating_all"] == pytest.approx(2 * there / (1 + there))
    assert scores["f1_micro_of_stating_all"] < scores["best_possible_f1_micro"] < 1
