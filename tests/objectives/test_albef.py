import math

import pytest
import torch

from medssml.losses.info_nce import cross_entropy_terms
from medssml.objectives import ALBEF
from medssml.objectives.albef import soft_terms
from tests.examples import step_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def made(model, **options):
    torch.manual_seed(0)
    return ALBEF(model, modalities=["ct"], dim=8, **options).eval()


def test_contrast_is_a_cross_entropy_with_momentum_targets(model):
    """Written out row by row; one pair is excluded."""
    g = torch.Generator().manual_seed(0)
    logits, guess = torch.randn(2, 3, 3, generator=g)
    match, negative = torch.eye(3).bool(), ~torch.eye(3).bool()
    negative[0, 2] = False
    total = 0.0
    for i in range(3):
        seen = [j for j in range(3) if match[i, j] or negative[i, j]]
        p = {j: math.exp(logits[i, j]) / sum(math.exp(logits[i, k]) for k in seen) for j in seen}
        q = {j: math.exp(guess[i, j]) / sum(math.exp(guess[i, k]) for k in seen) for j in seen}
        total -= sum((0.4 * q[j] + 0.6 * (i == j)) * math.log(p[j]) for j in seen)
    found = soft_terms(logits, guess, match, negative, 0.4)
    assert found.total.item() == pytest.approx(total, rel=1e-5) and found.terms == 3
    hard = soft_terms(logits, guess, match, negative, 0.0)
    torch.testing.assert_close(hard.total, cross_entropy_terms(logits, match, negative).total)


def test_the_loss_is_contrast_and_matching_of_every_whole_and_mixed_study(model):
    objective = made(model, batch_norm=False)
    studies = ten_studies()
    step = step_of(model, objective, studies)
    twin = step.twin(objective).space
    student = {n: objective.space(n, step.encoded[n].pooled) for n in ("ct", "report")}
    teacher = {n: twin(n, step.teacher.encoded[n].pooled).detach() for n in ("ct", "report")}
    with_ct = [n for n, s in enumerate(studies) if "ct" in s["inputs"]]
    with_report = [n for n, s in enumerate(studies) if "report" in s["inputs"]]
    both = [n for n in with_ct if n in with_report]
    terms = []
    for a, b, left, right in (("ct", "report", with_ct, with_report), ("report", "ct", with_report, with_ct)):
        log = (student[a] @ teacher[b].T / 0.07).log_softmax(1)
        soft = (teacher[a] @ teacher[b].T / 0.07).softmax(1)
        for n in both:
            target = 0.4 * soft[left.index(n)]
            target[right.index(n)] += 0.6
            terms.append(float(-(target * log[left.index(n)]).sum().detach()))
    answer = objective(step)
    assert answer["loss_contrast"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)

    asked = objective._asked(step)
    scale = objective.scale()
    mixed = objective._mixed(step, asked, objective._similarity(step, student, scale))
    logits = [objective.head(step.fuse_made_up(step.encoded, s).pooled) for s in (asked.own, mixed)]
    each = [*torch.nn.functional.softplus(-logits[0]), *torch.nn.functional.softplus(logits[1])]
    assert len(each) == 3 * len(both)
    assert answer["loss_matching"].item() == pytest.approx(float(sum(each).detach()) / len(each), rel=1e-4)
    torch.testing.assert_close(answer["loss"], answer["loss_contrast"] + answer["loss_matching"])


def test_negatives_are_another_subjects_and_drawn_in_proportion_to_likeness(model):
    objective = made(model)
    studies = [study(n, ("ct", "report")) for n in range(5)]
    studies[4]["subject"] = studies[0]["subject"]
    studies[3]["content"]["report"] = studies[0]["content"]["report"]
    step = step_of(model, objective, studies)
    similarity = torch.zeros(5, 5)
    similarity[0] = torch.tensor([9.0, 0.0, math.log(3.0), 9.0, 9.0])
    report, ct = model.modalities.index("report"), model.modalities.index("ct")
    drawn = []
    for seed in range(400):
        step.seed = seed
        mixed = objective._mixed(step, objective._asked(step), similarity)
        assert len(mixed) == 10
        drawn.append(int(mixed[0, report]))
        assert all(int(row[report]) != int(row[ct]) for row in mixed)
        assert (mixed[:5, ct].tolist(), mixed[5:, report].tolist()) == ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4])
    # Neither itself, nor the same report, nor the same subject; study 2 three times as often as study 1.
    assert set(drawn) == {1, 2}
    assert drawn.count(2) / 400 == pytest.approx(0.75, abs=0.08)


def test_a_wrong_share_is_named(model):
    with pytest.raises(ValueError, match=r"alpha is 1.5; expected a share from 0 to 1"):
        made(model, alpha=1.5)
