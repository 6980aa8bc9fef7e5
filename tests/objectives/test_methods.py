"""The methods of the literature against references that are written out here, study by study."""

import math

import pytest
import torch
from torch.nn import functional as F

from medssml.model import MultimodalModel
from medssml.objectives import (
    Captioning,
    Data2Vec,
    DeepCluster,
    FusedMaskedLanguage,
    MaskedLanguageModelling,
    Matching,
    MoCoV3,
    SimCLR,
    Step,
    Teacher,
)
from medssml.objectives.clustering import k_means
from tests.examples import VOCABULARY, batch_of, step_of, study, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model() -> MultimodalModel:
    return tiny_model().eval()


def test_simclr_is_the_softmax_over_all_other_looks(model):
    objective = SimCLR(model, modalities=["ct"], dim=8, temperature=0.3, batch_norm=False).eval()
    step = Step(model, batch_of(ten_studies(), views=2))
    looks = [objective.space("ct", view.encoded["ct"].pooled) for view in step.views]
    z, n = torch.cat(looks), len(looks[0])
    terms = []
    for i in range(2 * n):
        other = (i + n) % (2 * n)
        denominator = sum(math.exp(float(z[i] @ z[k]) / 0.3) for k in range(2 * n) if k != i)
        terms.append(-math.log(math.exp(float(z[i] @ z[other]) / 0.3) / denominator))
    assert float(objective(step)["loss"]) == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_simclr_does_not_push_a_subject_from_itself(model):
    both = [study(0, ("ct",), subject=5), study(1, ("ct",), subject=5)]
    assert SimCLR(model, modalities=["ct"], dim=8)(Step(model, batch_of(both, views=2))) is None


def test_moco_v3_is_algorithm_1(model):
    objective = MoCoV3(model, modalities=["xray"], dim=8, temperature=0.2, batch_norm=False).eval()
    other, twin = tiny_model(seed=9).eval(), MoCoV3(model, modalities=["xray"], dim=8, batch_norm=False).eval()
    teacher = Teacher(other, {objective: twin})
    step = Step(model, batch_of(ten_studies(), views=2), teacher=teacher)

    def project(m, space, view):
        return space("xray", m.encode(m.align(view))["xray"].pooled)

    views = (step.batch, step.batch.views[0])
    q = [F.normalize(objective.predict["xray"](project(model, objective.space, view)), dim=1) for view in views]
    k = [project(other, twin.space, view).detach() for view in views]

    def ctr(q, k):
        return 2 * 0.2 * F.cross_entropy(q @ k.T / 0.2, torch.arange(len(q)))

    torch.testing.assert_close(objective(step)["loss"], ctr(q[0], k[1]) + ctr(q[1], k[0]), rtol=1e-5, atol=1e-6)


def test_data2vec_asks_for_normalised_features_of_the_teachers_last_blocks(model):
    objective = Data2Vec(model, modalities=["ct"], layers=1, decoder_dim=16, decoder_depth=1, decoder_heads=2).eval()
    torch.nn.init.zeros_(objective.decoders["ct"].predict.weight)
    torch.nn.init.zeros_(objective.decoders["ct"].predict.bias)
    step = step_of(model, objective, ten_studies())
    # A prediction of 0: the mean square of a normalised feature, which is 1.
    assert float(objective(step)["loss"].detach()) == pytest.approx(1.0, abs=1e-4)

    seen = []
    block = step.teacher.model.encoders["ct"].transformer.blocks[-1]
    handle = block.register_forward_hook(lambda _, __, out: seen.append(out))
    shift = torch.full((24,), 0.5)
    objective.decoders["ct"].predict.bias.data = shift
    fresh = step_of(model, objective, ten_studies())
    fresh_block = fresh.teacher.model.encoders["ct"].transformer.blocks[-1]
    fresh_block.register_forward_hook(lambda _, __, out: seen.append(out))
    loss = float(objective(fresh)["loss"].detach())
    handle.remove()
    target = (seen[-1] - seen[-1].mean(-1, keepdim=True)) / seen[-1].std(-1, unbiased=False, keepdim=True)
    masked = objective._masking(fresh, "ct").masked
    assert loss == pytest.approx(float((target[masked] - 0.5).square().mean()), rel=1e-3)


def test_data2vec_shows_the_student_the_visible_tokens_only(model):
    objective = Data2Vec(model, modalities=["ct"], layers=1, decoder_dim=16, decoder_depth=1, decoder_heads=2).eval()
    counted = []
    handle = model.encoders["ct"].transformer.register_forward_pre_hook(
        lambda _, args: counted.append(args[0].shape[1])
    )
    model.encoders["ct"].transformer.with_layers, original = (
        lambda x, mask, count: (counted.append(x.shape[1]), original(x, mask, count))[1],
        model.encoders["ct"].transformer.with_layers,
    )
    try:
        objective(step_of(model, objective, ten_studies()))
    finally:
        del model.encoders["ct"].transformer.with_layers
        handle.remove()
    assert 2 in counted  # 8 tokens, three quarters hidden


def test_matching_gives_each_study_the_report_of_another_and_begins_at_chance(model):
    objective = Matching(model).eval()
    torch.nn.init.zeros_(objective.head.weight)
    torch.nn.init.zeros_(objective.head.bias)
    studies = ten_studies()
    studies[5]["subject"] = studies[1]["subject"]
    studies[6]["content"]["report"] = studies[0]["content"]["report"]
    step = Step(model, batch_of(studies))
    own, other = objective._sources(step)
    report = model.modalities.index("report")
    asked = own[:, report].tolist()
    assert asked == [0, 1, 5, 6]  # with a report and something else
    for i, j in zip(asked, other.tolist(), strict=True):
        assert i != j and "report" in studies[j]["inputs"]
        assert studies[i]["subject"] != studies[j]["subject"]
        assert studies[i]["content"]["report"] != studies[j]["content"]["report"]
    assert float(objective(step)["loss"].detach()) == pytest.approx(math.log(2), rel=1e-5)
    alone = Step(model, batch_of([study(0, ("ct", "report"))]))
    assert objective(alone) is None


def test_matching_is_learned_where_modalities_say_the_same():
    """The report's first word names how bright the CT is: after some steps made-up studies are told from true ones."""
    model, both = tiny_model(), ("ct", "report")
    studies = [study(n, both) for n in range(16)]
    for n, one in enumerate(studies):
        one["inputs"]["ct"] = one["inputs"]["ct"] * 0.1 + n % 2
        one["inputs"]["report"] = torch.tensor([2, 10 + n % 2, 3])
        one["content"]["report"] = n % 2
    objective = Matching(model, modalities=["ct"])
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    for _ in range(120):
        optimiser.zero_grad()
        objective(Step(model, batch_of(studies)))["loss"].backward()
        optimiser.step()
    assert float(objective(Step(model, batch_of(studies)))["accuracy"]) > 0.9


def test_captioning_sees_neither_the_report_nor_later_words(model):
    objective = Captioning(model, dim=16, depth=1, heads=2).eval()
    studies = [study(n, ("ct", "report")) for n in range(3)]
    ids = torch.stack([torch.tensor([2, 7, 8, 9, 3])] * 2)
    other = ids.clone()
    other[0, 3] = 20
    tokens, mask = torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)
    a, b = objective.decoder(ids, tokens, mask), objective.decoder(other, tokens, mask)
    torch.testing.assert_close(a[0, :3], b[0, :3])
    assert not torch.allclose(a[0, 3:], b[0, 3:])

    # The mean over words of -log p, written out from the decoder's own answers.
    step = Step(model, batch_of(studies))
    shown = model.fuse(model.encode(step.batch.without("report")), step.batch.without("report").present)
    total, words = 0.0, 0
    for row, one in enumerate(studies):
        text = one["inputs"]["report"]
        logits = objective.decoder(text[None, :-1], shown.tokens[row : row + 1], shown.mask[row : row + 1])[0]
        total += float(F.cross_entropy(logits, text[1:], reduction="sum"))
        words += len(text) - 1
    assert float(objective(step)["loss"].detach()) == pytest.approx(total / words, rel=1e-4)
    assert objective(Step(model, batch_of([study(0, ("report",)), study(1, ("ct",))]))) is None


def test_captioning_writes_what_it_has_learned():
    model = tiny_model()
    studies = [study(n, ("ct", "report")) for n in range(4)]
    for n, one in enumerate(studies):
        one["inputs"]["ct"] = one["inputs"]["ct"] * 0.1 + n
        one["inputs"]["report"] = torch.tensor([2, 10 + n, 20 + n, 3])
    objective = Captioning(model, dim=32, depth=1, heads=2)
    optimiser = torch.optim.Adam([*model.parameters(), *objective.parameters()], lr=3e-3)
    for _ in range(150):
        optimiser.zero_grad()
        objective(Step(model, batch_of(studies)))["loss"].backward()
        optimiser.step()
    model.eval(), objective.eval()
    step = Step(model, batch_of(studies).without("report"))
    written = objective.kept()["decoder"].write(step.fused.tokens, step.fused.mask)
    assert written.tolist() == [one["inputs"]["report"].tolist() for one in studies]


def test_clusters_are_those_that_are_there_and_weigh_the_same():
    torch.manual_seed(0)
    centres = torch.tensor([[10.0, 0.0], [-5.0, 8.0], [-5.0, -8.0]])
    truth = torch.tensor([0] * 20 + [1] * 6 + [2] * 4)
    found = k_means(centres[truth] + 0.1 * torch.randn(30, 2), 3)
    assert torch.equal(found, truth)  # numbered as they come
    assert k_means(torch.ones(5, 2), 3).tolist() == [0] * 5  # no direction in which they differ

    model = tiny_model().eval()
    objective = DeepCluster(model, modalities=["ct"], clusters=3)
    step = step_of(model, objective, [study(n, ("ct",)) for n in range(9)])
    labels, weights = objective._labels(step, "ct")
    sums = [float(weights[labels == c].sum()) for c in labels.unique()]
    assert sums == pytest.approx([sums[0]] * len(sums))
    before = objective.heads["ct"].weight.clone()
    with torch.no_grad():
        objective.begin_epoch(step.clock, model, [step.batch])
    assert not torch.equal(objective.heads["ct"].weight, before)


def test_deep_cluster_before_its_first_epoch_has_nothing_to_say(model):
    assert DeepCluster(model, clusters=3)(Step(model, batch_of(ten_studies()))) is None


def test_language_through_the_fusion_reads_the_other_modalities(model):
    objective = FusedMaskedLanguage(model).eval()
    step = Step(model, batch_of(ten_studies()))
    plain = float(objective(step)["loss"].detach())

    # The reference: hide the words, encode, fuse everything in one pass, ask at the report's places.
    shown, asked = objective._corruption(step)
    inputs = {**step.batch.inputs, "report": {**step.batch.inputs["report"], "input_ids": shown}}
    changed = type(step.batch)(**{**step.batch.__dict__, "inputs": inputs})
    fused = model.fuse(model.encode(changed), changed.present)
    embedding = model.encoders["report"].bert.get_input_embeddings().weight
    logits = objective.transform(fused.parts["report"].tokens[asked]) @ embedding.T + objective.bias
    expected = F.cross_entropy(logits, step.batch.inputs["report"]["input_ids"][asked])
    assert plain == pytest.approx(float(expected.detach()), rel=1e-5)

    batch = batch_of(ten_studies())
    batch.inputs["ct"].mul_(3)
    assert float(objective(Step(model, batch))["loss"].detach()) != pytest.approx(plain, rel=1e-6)
    alone = MaskedLanguageModelling(model).eval()
    assert float(alone(Step(model, batch))["loss"].detach()) == pytest.approx(
        float(alone(step)["loss"].detach()), rel=1e-6
    )
    assert VOCABULARY == len(objective.bias)


def test_language_through_a_fusion_of_pooled_vectors_is_refused():
    from medssml.fusion import ConcatFusion

    pooled = tiny_model(fusion=lambda names, dim: ConcatFusion(names, dim))
    with pytest.raises(ValueError, match="reads pooled vectors; fix: tokens: all"):
        FusedMaskedLanguage(pooled)
