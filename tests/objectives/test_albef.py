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
    return ALBEF(model, **{"modalities": ["ct"], "dim": 8, "queue": 0, **options}).eval()


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
    with pytest.raises(ValueError, match=r"queue is -1; expected a number of studies, or 0 for none"):
        made(model, queue=-1)


def earlier_studies():
    """Of the subject of study 0, with the report of study 1, with the CT of study 6, with the X-ray of study 6, of nobody."""
    own = [study(number, ("ct", "xray", "report")) for number in range(40, 45)]
    own[0]["subject"] = 100
    own[1]["content"]["report"] = study(1, ("report",))["content"]["report"]
    for place, name in ((2, "ct"), (3, "xray")):
        own[place]["content"][name] = study(6, (name,))["content"][name]
    return own


def test_the_queue_joins_the_batch_in_logits_and_targets_and_duplicates_are_neither(model):
    """Written out study by study: keys are the teacher's, of this batch and of the step before, without what is alike."""
    objective = made(model, modalities=["ct", "xray"], queue=7, batch_norm=False).train()
    past, studies = earlier_studies(), ten_studies()
    before = step_of(model, objective, past)
    objective(before)
    objective.after_step(before.clock)
    step = step_of(model, objective, studies)
    twin = step.twin(objective).space

    def unit(space, encoded, name):
        return dict(zip(owners[name], space(name, encoded[name].pooled).detach(), strict=True))

    owners = {n: [k for k, s in enumerate(studies) if n in s["inputs"]] for n in ("ct", "xray", "report")}
    student = {n: unit(objective.space, step.encoded, n) for n in owners}
    teacher = {n: unit(twin, step.teacher.encoded, n) for n in owners}
    terms = []
    for name in ("ct", "xray"):
        for a, b in ((name, "report"), ("report", name)):
            queued = before.twin(objective).space(b, before.teacher.encoded[b].pooled).detach()
            random = objective.queues[b].vectors[5:]
            for k in owners[a]:
                if k not in owners[b]:
                    continue
                keys = [(teacher[b][j], j == k) for j in owners[b]]
                for other, vector in zip(past, queued, strict=True):
                    alike = other["subject"] == studies[k]["subject"] or any(
                        other["content"][m] == studies[k]["content"].get(m) for m in (a, b)
                    )
                    keys += [] if alike else [(vector, False)]
                keys += [(vector, False) for vector in random]
                p, q = (
                    torch.stack([z @ key for key, _ in keys]).div(0.07).softmax(0)
                    for z in (student[a][k], teacher[a][k])
                )
                target = 0.4 * q + 0.6 * torch.tensor([own for _, own in keys])
                terms.append(float(-(target * p.log()).sum()))
    answer = objective(step)
    assert answer["loss_contrast"].item() == pytest.approx(sum(terms) / len(terms), rel=1e-4)
    # Whoever is alike in X-ray alone is a negative between CT and report.
    columns = [model.modalities.index(n) for n in ("ct", "report")]
    alike = objective.queues["report"].alike(step.everyone, torch.tensor([6]), columns)
    assert alike.tolist() == [[False, False, True, False, False, False, False]]


def test_the_teachers_keys_enter_after_the_step_and_a_validation_leaves_none(model):
    objective = made(model, queue=7).train()
    step = step_of(model, objective, ten_studies())
    begun = objective.queues["report"].vectors.clone()
    objective.eval()(step)
    objective.after_step(step.clock)
    assert torch.equal(objective.queues["report"].vectors, begun)
    objective.train()(step)
    assert torch.equal(objective.queues["report"].vectors, begun)  # a step sees none of its own keys
    objective.after_step(step.clock)
    keys = step.twin(objective).space("report", step.teacher.encoded["report"].pooled).detach()
    torch.testing.assert_close(objective.queues["report"].vectors, torch.cat([keys, begun])[:7])
    assert objective.queues["report"].subject[:5].tolist() == [100 + n for n in (0, 1, 4, 5, 6)]
    assert objective.queues["ct"].subject[:5].tolist() == [100 + n for n in (0, 1, 3, 6, 7)]
    # The queue alone is enough to contrast one pair with.
    alone = step_of(model, objective, [study(50, ("ct", "report"))])
    assert objective(alone)["loss_contrast"] > 0 and objective._contrasts(alone) == 1


def test_published_queue(model):
    objective = ALBEF(model, modalities=["ct"])
    assert {n: tuple(q.vectors.shape) for n, q in objective.queues.items()} == {
        "report": (65536, 128),
        "ct": (65536, 128),
    }
