"""Losses and shares of right answers, written out study by study from the objective's own vectors and answers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from medssml.encoders import ViT
from medssml.fusion import ConcatFusion
from medssml.model import MultimodalModel
from medssml.objectives import (
    BagOfWords,
    Captioning,
    Clock,
    CrossModalContrast,
    Data2Vec,
    DeepCluster,
    FusedMaskedLanguage,
    MaskedLanguageModelling,
    Matching,
    MoCoV3,
    ModalityDropoutConsistency,
    SimCLR,
    Step,
    Teacher,
)
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.objectives.study_loss import wide
from tests.examples import batch_of, step_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def split(studies, sizes, views=1):
    """The batches of one step of the optimiser."""
    parts, start = [], 0
    for size in sizes:
        parts.append(batch_of(studies[start : start + size], views=views))
        start += size
    return parts


def test_simclr_is_the_mean_over_the_looks_of_all_modalities(model):
    objective = SimCLR(model, modalities=["ct", "xray"], dim=8, batch_norm=False).eval()
    studies = ten_studies()
    studies[1]["subject"] = studies[0]["subject"]
    step = Step(model, batch_of(studies, views=2))
    terms, right = [], {}
    for name in ("ct", "xray"):
        a, b = (objective.space(name, view.encoded[name].pooled) for view in step.views)
        z, n = torch.cat([a, b]), len(a)
        who = [studies[i]["subject"] for i in range(10) if name in studies[i]["inputs"]] * 2
        hits = []
        for i in range(2 * n):
            own = (i + n) % (2 * n)
            others = [k for k in range(2 * n) if who[k] != who[i]]
            scores = torch.stack([z[i] @ z[k] for k in [own, *others]]) / 0.1
            terms.append(-F.log_softmax(scores, 0)[0])
            hits.append(bool(scores[0] > scores[1:].max()))
        right[name] = sum(hits) / len(hits)
    answer = objective(step)
    torch.testing.assert_close(answer["loss"], torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
    assert {name: float(answer[f"accuracy_{name}"]) for name in right} == pytest.approx(right)


def test_moco_v3_is_the_mean_over_the_studies_of_all_modalities(model):
    objective = MoCoV3(model, modalities=["ct", "xray"], dim=8, batch_norm=False, temperature=0.3).eval()
    studies = ten_studies()
    studies[1]["subject"] = studies[0]["subject"]
    step = step_of(model, objective, studies)
    twin, terms, right = step.twin(objective), [], {}
    for name in ("ct", "xray"):
        who = [s["subject"] for s in studies if name in s["inputs"]]
        hits = []
        for mine, other in ((0, 1), (1, 0)):
            q = objective.predict[name](objective.space(name, step.views[mine].encoded[name].pooled))
            k = twin.space(name, step.teacher.views[other].encoded[name].pooled)
            for i in range(len(q)):
                candidates = [i] + [j for j in range(len(k)) if who[j] != who[i]]
                scores = torch.stack([F.cosine_similarity(q[i], k[j], dim=0) for j in candidates]) / 0.3
                terms.append(-F.log_softmax(scores, 0)[0])
                hits.append(bool(scores[0] > scores[1:].max()))
        right[name] = sum(hits) / len(hits)
    answer = objective(step)
    # Two directions, each 2 t times its mean.
    torch.testing.assert_close(answer["loss"], 2 * 2 * 0.3 * torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)
    assert {name: float(answer[f"accuracy_{name}"]) for name in right} == pytest.approx(right)


@pytest.mark.parametrize("kind", [SimCLR, MoCoV3])
def test_a_contrast_counts_its_terms_before_it_makes_them(model, kind):
    """With batches of a step, each weighs by its looks that have a negative; one without any is left out."""
    objective = kind(model, modalities=["ct"], dim=8, batch_norm=False).eval()
    parts = split([study(n, ("ct",)) for n in range(6)], (1, 2, 3), views=2)
    alone = step_of(model, objective, [study(0, ("ct",))])
    steps = [Step(model, part, group=parts, teacher=alone._teacher) for part in parts]
    assert [int(objective._count(step)) for step in steps] == [0, 4, 6]
    assert objective(steps[0]) is None
    for step, count in zip(steps[1:], (4, 6), strict=True):
        whole = objective(Step(model, step.batch, teacher=alone._teacher))["loss"]
        torch.testing.assert_close(objective(step)["loss"], whole * 3 * count / 10)


def two_deep(seed=0):
    torch.manual_seed(seed)
    encoders = {"ct": ViT((8, 8, 8), 4, 24, 3, 2), "xray": ViT((16, 16), 4, 24, 3, 2)}
    return MultimodalModel(encoders, ConcatFusion(tuple(encoders), 16), {}).eval()


def test_data2vec_is_the_mean_over_modalities_of_the_error_on_hidden_tokens():
    model, teacher = two_deep(), two_deep(3)
    objective = Data2Vec(model, mask_ratio=0.5, layers=2, decoder_dim=16, decoder_depth=1, decoder_heads=2).eval()
    studies = [study(0, ("ct", "xray")), study(1, ("ct",)), study(2, ("xray",)), study(3, ("xray",))]
    batch = batch_of(studies, modalities=("ct", "xray"))
    step = Step(model, batch, teacher=Teacher(teacher))
    answer, expected = objective(step), {}
    for name in ("ct", "xray"):
        encoder, inputs = model.encoders[name], batch.inputs[name]
        outputs = teacher.encoders[name](inputs, layers=2).layers
        assert len(outputs) == 2
        target = sum(
            (o - o.mean(-1, keepdim=True)) / (o.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() for o in outputs
        )
        masking, real = objective._masking(step, name), encoder.token_mask(inputs)
        predicted = objective.decoders[name](
            encoder(inputs, masking.keep).tokens, masking, encoder.positions(inputs), real
        )
        assert int(masking.masked.sum()) == int(real.sum()) // 2
        expected[name] = (predicted - target / 2)[masking.masked].square().mean()
        torch.testing.assert_close(answer[f"loss_{name}"], expected[name].detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(answer["loss"], (expected["ct"] + expected["xray"]) / 2, rtol=1e-4, atol=1e-5)

    # In two batches of a step: each modality's mean over the hidden tokens of both.
    parts = [batch_of(studies[:1], modalities=("ct", "xray")), batch_of(studies[1:2], modalities=("ct", "xray"))]
    losses = [objective(Step(model, part, group=parts, teacher=Teacher(teacher))) for part in parts]
    ct = sum(float(loss["loss_ct"].detach()) for loss in losses) / 2
    total = sum(float(loss["loss"].detach()) for loss in losses) / 2
    assert total == pytest.approx((ct + float(losses[0]["loss_xray"].detach())) / 2, rel=1e-4)


def test_matching_is_the_cross_entropy_of_whole_and_mixed(model):
    torch.manual_seed(2)
    objective, studies = Matching(model, modalities=["ct", "eeg"]).eval(), ten_studies()
    studies[3]["inputs"]["report"] = studies[1]["inputs"]["report"]
    studies[3]["content"]["report"] = 77
    step = Step(model, batch_of(studies), seed=5)
    own, other = objective._sources(step)
    columns = {name: model.modalities.index(name) for name in ("ct", "eeg", "report", "xray")}
    assert own[:, columns["report"]].tolist() == [0, 1, 3, 6]  # a report, and a CT or an EEG
    assert bool((own[:, columns["xray"]] == -1).all())
    mixed = own.clone()
    mixed[:, columns["report"]] = other
    logits = torch.cat([objective.head(step.fuse_made_up(step.encoded, s).pooled).squeeze(1) for s in (own, mixed)])
    truth = torch.tensor([1.0] * 4 + [0.0] * 4)
    answer = objective(step)
    expected = -(F.logsigmoid(logits) * truth + F.logsigmoid(-logits) * (1 - truth)).mean()
    torch.testing.assert_close(answer["loss"], expected, rtol=1e-5, atol=1e-6)
    assert float(answer["accuracy"]) == pytest.approx(float(((logits > 0) == (truth > 0)).float().mean()))
    assert int(objective._count(step)) == 8


def test_captioning_counts_words_and_right_words(model):
    objective = Captioning(model, dim=16, depth=1, heads=2).eval()
    studies = [study(0, ("ct", "report")), study(1, ("report",)), study(2, ("report", "eeg")), study(3, ("ct",))]
    # The bias makes one word the likeliest everywhere: its share is the accuracy.
    with torch.no_grad():
        objective.decoder.bias.zero_()
        objective.decoder.bias[3] = 1e4
    step = Step(model, batch_of(studies))
    words = sum(len(studies[n]["inputs"]["report"]) - 1 for n in (0, 2))
    answer = objective(step)
    assert float(answer["accuracy"]) == pytest.approx(2 / words)  # each report ends once
    assert int(objective._count(step)) == words
    assert objective.kept() == {"decoder": objective.decoder}
    parts = split(studies, (1, 3))
    losses = [objective(Step(model, part, group=parts))["loss"] for part in parts]
    whole = objective(step)["loss"]
    torch.testing.assert_close(sum(losses) / 2, whole, rtol=1e-4, atol=1e-3)


def clustered(model, assigned, **options):
    objective = DeepCluster(model, modalities=["ct", "eeg"], clusters=3, **options)
    objective.assigned.of_study = torch.tensor(assigned)
    return objective


def test_deep_cluster_is_a_cross_entropy_in_which_clusters_weigh_the_same(model):
    assigned = [[0, 0, -1, 1, 0, -1, 0, -1, -1, -1], [2, -1, 2, 1, -1, -1, -1, -1, -1, 0]]
    objective = clustered(model, assigned).eval()
    step = Step(model, batch_of(ten_studies()))
    weights = ({0: 5 / (4 * 2), 1: 5 / (1 * 2)}, {0: 4 / (1 * 3), 1: 4 / (1 * 3), 2: 4 / (2 * 3)})
    answer, means = objective(step), []
    for place, name in enumerate(("ct", "eeg")):
        logits = objective.heads[name](step.encoded[name].pooled)
        rows = step.batch.rows(name).tolist()
        known = [(j, assigned[place][row]) for j, row in enumerate(rows) if assigned[place][row] >= 0]
        size = sum(weights[place][label] for _, label in known)
        terms = [-weights[place][label] * F.log_softmax(logits[j], 0)[label] for j, label in known]
        right = sum(weights[place][label] for j, label in known if int(logits[j].argmax()) == label)
        means.append(torch.stack(terms).sum() / size)
        assert float(answer[f"accuracy_{name}"]) == pytest.approx(right / size)
    torch.testing.assert_close(answer["loss"], (means[0] + means[1]) / 2, rtol=1e-5, atol=1e-6)


def test_deep_cluster_knows_only_the_studies_that_it_has_clustered(model):
    objective = clustered(model, [[0, 1], [-1, -1]]).eval()
    batch = batch_of([study(n, ("ct", "eeg")) for n in (0, 1)])
    assert set(objective(Step(model, batch))) == {"loss", "accuracy_ct"}
    for index in (torch.tensor([2, 5]), torch.tensor([-1, -1]), None):
        assert objective(Step(model, replace(batch, index=index))) is None
    with pytest.raises(ValueError, match="^DeepCluster needs to know which study is which; fix: batches with `index`$"):
        objective.begin_epoch(Clock(), model, [replace(batch, index=None)])


def test_deep_cluster_weighs_the_batches_of_a_step_by_their_weights(model):
    assigned = [[0, 0, 0, 1], [-1, -1, -1, -1]]
    objective, studies = clustered(model, assigned).eval(), [study(n, ("ct",)) for n in range(4)]
    whole = objective(Step(model, batch_of(studies)))["loss"]
    parts = split(studies, (1, 3))
    losses = [objective(Step(model, part, group=parts))["loss"] for part in parts]
    torch.testing.assert_close(sum(losses) / 2, whole, rtol=1e-5, atol=1e-6)


def test_deep_cluster_clusters_all_studies_in_their_order_whatever_the_batches(model):
    # More studies than features: as few points, whitened, all lie equally far from each other, and any partition is as good.
    count = 6 * model.dim
    studies = [study(n, ("ct",) if n % 3 else ("ct", "eeg")) for n in range(count)]
    found = []
    for batches in ([batch_of(studies)], [batch_of(studies[5:]), batch_of(studies[:5])]):
        objective = DeepCluster(model, modalities=["ct", "eeg"], clusters=3)
        torch.manual_seed(4)
        objective.begin_epoch(Clock(), model, batches)
        found.append(objective.assigned.of_study)
    assert torch.equal(found[0], found[1]) and found[0].shape == (2, count)
    assert bool((found[0][0] >= 0).all()) and (found[0][1] >= 0).tolist() == [n % 3 == 0 for n in range(count)]
    again = DeepCluster(model, modalities=["ct", "eeg"], clusters=3)
    again.load_state_dict(objective.state_dict())
    assert torch.equal(again.assigned.of_study, objective.assigned.of_study)


def test_captioning_begins_and_ends_as_the_text_encoder_says():
    model = tiny_model().eval()
    model.encoders["report"].special_ids |= {"cls": 7, "sep": 8, "pad": 9}
    decoder = Captioning(model, dropout=0.2).decoder
    assert (decoder.start, decoder.end, decoder.pad) == (7, 8, 9)
    assert decoder.max_length == model.encoders["report"].max_length
    assert {part.p for part in decoder.modules() if isinstance(part, torch.nn.Dropout)} == {0.2}


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (lambda m: CrossModalContrast(m, dim=8, pairs=["ct+report"], batch_norm=False), [0, 2, 3]),
        (lambda m: CrossModalContrast(m, dim=8, pairs=["ct+report", "ct+eeg"], batch_norm=False), [0, 2, 3]),
        (lambda m: ModalityDropoutConsistency(m, dim=8), [0, 2, 3]),
        (lambda m: Matching(m), [0, 4, 6]),
        (lambda m: BagOfWords(m, modalities=["ct", "xray"], pairs=16, batch_norm=False), [1, 2, 3]),
    ],
    ids=["contrast", "contrast of two pairs", "consistency", "matching", "words"],
)
def test_what_compares_studies_weighs_the_batches_of_a_step_by_its_terms(model, make, counts):
    """Six studies with a CT and a report in batches of one, two and three: as many terms as are counted before."""
    torch.manual_seed(0)
    objective = make(model).eval()
    parts = split([study(n, ("ct", "report")) for n in range(6)], (1, 2, 3))
    steps = [Step(model, part, group=parts) for part in parts]
    assert [int(objective._count(step)) for step in steps] == counts
    for step, count in zip(steps, counts, strict=True):
        alone = objective(Step(model, step.batch))
        if count == 0:
            assert alone is None and objective(step) is None
        else:
            torch.testing.assert_close(objective(step)["loss"], alone["loss"] * 3 * count / sum(counts))


def test_a_contrast_says_of_each_pair_its_loss_and_how_many_find_each_other(model):
    torch.manual_seed(0)
    objective = CrossModalContrast(model, dim=8, pairs=["ct+xray", "eeg+report"], temperature=0.5).eval()
    studies = ten_studies()
    step = Step(model, batch_of(studies))
    answer = objective(step)
    assert set(answer) == {
        "loss",
        "temperature",
        "accuracy_ct+xray",
        "loss_ct+xray",
        "accuracy_eeg+report",
        "loss_eeg+report",
    }
    assert float(answer["temperature"]) == pytest.approx(0.5) and not answer["temperature"].requires_grad
    terms = []
    for m, n in (("ct", "xray"), ("eeg", "report")):
        a, b = (objective.space(name, step.encoded[name].pooled) for name in (m, n))
        rows = {name: step.batch.rows(name).tolist() for name in (m, n)}
        losses, hits = [], []
        for x, y, first, second in ((a, b, rows[m], rows[n]), (b, a, rows[n], rows[m])):
            for i, row in enumerate(first):
                if row in second:
                    scores = x[i] @ y.T / 0.5
                    losses.append(F.cross_entropy(scores[None], torch.tensor([second.index(row)])))
                    hits.append(int(scores.argmax()) == second.index(row))
        assert float(answer[f"accuracy_{m}+{n}"]) == pytest.approx(sum(hits) / len(hits))
        torch.testing.assert_close(answer[f"loss_{m}+{n}"], torch.stack(losses).mean().detach(), rtol=1e-5, atol=1e-6)
        terms += losses
    torch.testing.assert_close(answer["loss"], torch.stack(terms).mean(), rtol=1e-5, atol=1e-6)


def test_consistency_says_how_many_parts_find_their_whole(model):
    torch.manual_seed(0)
    objective = ModalityDropoutConsistency(model, dim=8, temperature=0.2).eval()
    batch = batch_of([s for s in ten_studies() if s["inputs"]])
    step = Step(model, batch, seed=4)
    within = reduced_presence(batch.present, batch.key, 0.5, seed=4)
    part = F.normalize(objective.head(model.fuse(step.encoded, batch.present, within).pooled), dim=1)
    whole = F.normalize(objective.head(step.fused.pooled), dim=1)
    asked = (batch.present.sum(1) > 1).nonzero().squeeze(1)
    scores = part @ whole.T / 0.2
    answer = objective(step)
    # Both ways: the part among the wholes, and the whole among the parts.
    both = torch.cat([scores[asked], scores.T[asked]])
    truth = asked.repeat(2)
    torch.testing.assert_close(answer["loss"], F.cross_entropy(both, truth), rtol=1e-5, atol=1e-6)
    assert float(answer["accuracy"]) == pytest.approx(float((both.argmax(1) == truth).float().mean()))
    assert float(answer["temperature"]) == pytest.approx(0.2) and not answer["temperature"].requires_grad


def test_words_say_the_loss_of_each_modality(model):
    torch.manual_seed(0)
    objective = BagOfWords(model, modalities=["ct", "xray"], pairs=16, batch_norm=["ct"]).eval()
    assert [type(objective.norms[name]).__name__ for name in ("ct", "xray")] == ["GatheredNorm", "Identity"]
    answer = objective(Step(model, batch_of(ten_studies())))
    assert set(answer) == {"loss", "loss/ct", "loss/xray"} and not answer["loss/ct"].requires_grad
    # Three CTs and three radiographs stand beside a report.
    torch.testing.assert_close(answer["loss"].detach(), (3 * answer["loss/ct"] + 3 * answer["loss/xray"]) / 6)
    ct = objective(Step(model, batch_of([study(0, ("ct", "report")), study(1, ("xray",))])))
    assert set(ct) == {"loss", "loss/ct"}
    objective.train()
    objective(Step(model, batch_of([study(0, ("ct",)), study(1, ("xray",))])))
    assert int(objective.batches) == 0, "without a report nothing is followed"


def test_what_is_compared_is_wide():
    for narrow in (torch.float16, torch.bfloat16, torch.float32):
        assert wide(torch.zeros(2, dtype=narrow)).dtype == torch.float32
    assert wide(torch.zeros(2, dtype=torch.float64)).dtype == torch.float64


def test_a_rank_without_a_report_gives_a_zero_of_the_type_that_others_give(model):
    step = Step(model, batch_of([study(0, ("ct",))]))
    for kind, ask in ((Captioning, "_write"), (MaskedLanguageModelling, "_predict"), (FusedMaskedLanguage, "_predict")):
        objective = kind(model).to(torch.bfloat16)
        total, right, count = getattr(objective, ask)(step)
        assert (total.dtype, right.dtype, count.dtype) == (torch.float32, torch.int64, torch.int64)
        assert (float(total), int(right), int(count)) == (0.0, 0, 0) and total.shape == ()
