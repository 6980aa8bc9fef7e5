"""What all objectives share: defaults, what remains of their arguments without some modalities, and refusals."""

from __future__ import annotations

import pytest
import torch

from medssml.config import LeftOut, describe
from medssml.fusion import ConcatFusion
from medssml.model import MultimodalModel
from medssml.objectives import (
    BagOfWords,
    Captioning,
    Clock,
    CrossEntropy,
    CrossModalContrast,
    Data2Vec,
    DeepCluster,
    FusedMaskedLanguage,
    MaskedLanguageModelling,
    MaskedReconstruction,
    Matching,
    MoCoV3,
    ModalityDropoutConsistency,
    MomentMatching,
    Objective,
    Ramp,
    SimCLR,
    Step,
    Supervised,
)
from medssml.objectives.base import chosen
from medssml.objectives.clock import ends
from tests.examples import MODALITIES, step_of, ten_studies, tiny_model


@pytest.fixture(scope="module")
def model():
    return tiny_model().eval()


def test_defaults_are_those_of_the_papers(model):
    simclr, moco, data2vec = SimCLR(model), MoCoV3(model), Data2Vec(model)
    assert (simclr.temperature, simclr.space.dim, simclr.views, simclr.teacher, simclr.weight) == (0.1, 128, 2, None, 1)
    assert (moco.temperature, moco.space.dim, moco.views) == (0.2, 128, 2)
    assert [moco.teacher.at(Clock(step, 4)) for step in (0, 2, 4)] == pytest.approx([0.99, 0.995, 1.0])
    assert all(len(norm.running_mean) == 16 for part in (simclr, moco) for norm in part.space.norms.values())
    assert (data2vec.mask_ratio, data2vec.layers, data2vec.teacher) == (0.75, 2, 0.999)
    assert set(MaskedReconstruction(model).mask_ratio.values()) == {0.75}
    for objective in (data2vec, MaskedReconstruction(model)):
        decoder = objective.decoders["ct"]
        assert decoder.embed.out_features == 128 and len(decoder.transformer.blocks) == 2
        assert float(decoder.mask_token.detach().abs().max()) < 0.2 and decoder.mask_token.shape == (1, 1, 128)
    assert MaskedLanguageModelling(model).mask_ratio == 0.15 and FusedMaskedLanguage(model).mask_ratio == 0.3
    assert DeepCluster(model).heads["eeg"].out_features == 32
    contrast, consistency = CrossModalContrast(model), ModalityDropoutConsistency(model)
    assert float(contrast.scale.eval()()) == pytest.approx(1 / 0.07) and contrast.scale.log.requires_grad
    assert contrast.space.dim == 128 and consistency.p == 0.5 and consistency.head[2].out_features == 128
    assert float(consistency.scale.eval()()) == pytest.approx(10.0)
    assert (
        BagOfWords(model, modalities=["ct"]).predict.out_features == BagOfWords(model, modalities=["ct"]).words + 2048
    )
    supervised = Supervised(model)
    assert (supervised.modality_dropout, supervised.unimodal_weight, supervised.losses[0].label_smoothing) == (0, 0, 0)
    writer = Captioning(model).decoder
    assert writer.bias.shape == (model.encoders["report"].vocab_size,)


def test_the_weight_is_positive_or_becomes_so(model):
    for wrong in (-1.0, 0.0, float("nan"), Ramp(0.0, 0.0), Ramp(-0.5, 1.0)):
        with pytest.raises(ValueError, match=r"^weight of SimCLR is .*; expected a positive number$"):
            SimCLR(model, weight=wrong)
    assert SimCLR(model, weight=Ramp(0.0, 0.5)).weight == Ramp(0.0, 0.5)
    assert ends(Ramp(0.1, 0.4)) == (0.1, 0.4) and ends(2.0) == (2.0,)
    assert Ramp(0.0, 1.0) != Ramp(0.0, 1.0, shape="cosine") and len({Ramp(0.0, 1.0), Ramp(0.0, 1.0)}) == 1
    assert "model" not in describe(SimCLR(model))["init_args"]


def test_chosen_are_in_the_order_of_the_model_and_known(model):
    assert chosen(model, None, "X") == MODALITIES
    assert chosen(model, ["report", "ct"], "X") == ("ct", "report")
    for wrong in (["ct", "pet"], []):
        with pytest.raises(
            ValueError, match=r"^X: modalities \[.*\]; the model has \['ct', 'xray', 'eeg', 'report'\]$"
        ):
            chosen(model, wrong, "X")


def test_what_remains_of_arguments_where_modalities_are_absent():
    left = ("ct", "xray")
    given = {
        "modalities": ["ct", "eeg"],
        "batch_norm": ["xray", "report"],
        "mask_ratio": {"ct": 0.5, "eeg": 0.6},
        "dim": 3,
    }
    kept = {"modalities": ["ct"], "batch_norm": ["xray"], "mask_ratio": {"ct": 0.5}, "dim": 3}
    assert Objective.restricted_to(given, left) == kept and given["modalities"] == ["ct", "eeg"]
    ramp = {"class_path": "Ramp", "init_args": {"start": 0.1, "end": 0.5}}
    plain = {"modalities": None, "batch_norm": True, "mask_ratio": ramp}
    assert Objective.restricted_to(plain, left) == plain
    with pytest.raises(LeftOut, match="^needs eeg or report$"):
        Objective.restricted_to({"modalities": ["eeg", "report"]}, left)


@pytest.mark.parametrize(
    ("kind", "arguments", "left", "kept"),
    [
        (CrossModalContrast, {"pairs": ["ct+eeg", "report+ct"]}, ("ct", "report"), {"pairs": ["report+ct"]}),
        (CrossModalContrast, {"batch_norm": ["ct", "eeg"]}, ("ct", "report"), {"batch_norm": ["ct"]}),
        (CrossModalContrast, {"pairs": ["ct+eeg", "eeg+report"]}, ("ct", "report"), "needs ct[+]eeg or eeg[+]report"),
        (CrossModalContrast, {}, ("ct",), "needs two modalities"),
        (MomentMatching, {"modalities": ["ct", "xray"]}, ("ct", "report"), "needs two modalities"),
        (ModalityDropoutConsistency, {"p": 0.3}, ("ct", "eeg"), {"p": 0.3}),
        (ModalityDropoutConsistency, {}, ("ct",), "needs two modalities"),
        (MaskedLanguageModelling, {"context": ["ct", "eeg"]}, ("report", "eeg"), {"context": ["eeg"]}),
        (MaskedLanguageModelling, {}, ("report",), {}),
        (MaskedLanguageModelling, {"modality": "text"}, ("report",), "needs text"),
        (MaskedLanguageModelling, {}, ("ct",), "needs report"),
        (BagOfWords, {"modalities": ["ct", "eeg"]}, ("ct", "report"), {"modalities": ["ct"]}),
        (BagOfWords, {"modalities": ["ct"], "report": "text"}, ("ct", "report"), "needs text"),
        (BagOfWords, {"modalities": ["ct"]}, ("ct", "eeg"), "needs report"),
        (Captioning, {"dim": 8}, ("ct", "report"), {"dim": 8}),
        (Captioning, {"report": "text"}, ("ct", "report"), "needs text and another modality"),
        (Captioning, {}, ("report",), "needs report and another modality"),
        (Matching, {"modalities": ["ct", "eeg"]}, ("ct", "report"), {"modalities": ["ct"]}),
        (Matching, {"anchor": "ct"}, ("eeg", "report"), "needs ct and another modality"),
        (Matching, {}, ("report",), "needs report and another modality"),
    ],
)
def test_what_each_can_do_without(kind, arguments, left, kept):
    if isinstance(kept, dict):
        assert kind.restricted_to(arguments, left) == {**arguments, **kept}
    else:
        with pytest.raises(LeftOut, match=f"^{kept}$"):
            kind.restricted_to(arguments, left)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda m: SimCLR(m, temperature=0.0), "temperature is 0.0; expected a positive number"),
        (lambda m: SimCLR(m, modalities=["pet"]), "SimCLR: modalities .'pet'.; the model has .*"),
        (lambda m: MoCoV3(m, modalities=["pet"]), "MoCoV3: modalities .'pet'.; the model has .*"),
        (lambda m: DeepCluster(m, modalities=["pet"]), "DeepCluster: modalities .'pet'.; the model has .*"),
        (lambda m: DeepCluster(m, clusters=1), "clusters is 1; fix: 2 or more"),
        (lambda m: Data2Vec(m, modalities=["report"]), "Data2Vec of report: its encoder TextEncoder cannot leave .*"),
        (lambda m: Matching(m, anchor="pet"), "Matching: anchor: modalities .'pet'.; the model has .*"),
        (lambda m: Matching(m, modalities=["pet"]), "Matching: modalities .'pet'.; the model has .*"),
        (
            lambda m: Matching(m, modalities=["ct", "report"]),
            "Matching: report cannot be matched with itself; name other modalities",
        ),
        (lambda m: Captioning(m, report="ct"), "Captioning: report: the encoder of ct is ViT, no TextEncoder"),
        (lambda m: Captioning(m, report="pet"), "Captioning: report: modalities .'pet'.; the model has .*"),
        (
            lambda m: Supervised(m, modality_dropout=1.0),
            "modality_dropout is 1.0; fix: a probability from 0 to below 1",
        ),
        (lambda m: Supervised(m, unimodal_weight=-0.1), "unimodal_weight is -0.1; fix: 0 or a positive number"),
        (lambda m: BagOfWords(m, modalities=["mri"]), "BagOfWords: modalities .'mri'.; the model has .*"),
        (
            lambda m: BagOfWords(m, modalities=["ct"], report="mri"),
            "BagOfWords: report: modalities .'mri'.; the model .*",
        ),
        (
            lambda m: BagOfWords(m, modalities=["report"]),
            "BagOfWords: report cannot predict its own words; name other modalities",
        ),
        (
            lambda m: BagOfWords(m, modalities=["ct"], report="eeg"),
            "BagOfWords: report: the encoder of eeg is EEGTransformer, no TextEncoder",
        ),
        (
            lambda m: BagOfWords(m, modalities=["ct"], pairs=-1),
            "pairs is -1; expected 0 or a number of buckets",
        ),
        (
            lambda m: MaskedLanguageModelling(m, modality="mri"),
            "MaskedLanguageModelling: modalities .'mri'.; the model has .*",
        ),
        (
            lambda m: MaskedLanguageModelling(m, modality="ct"),
            "MaskedLanguageModelling: the encoder of ct is ViT, no TextEncoder",
        ),
        (
            lambda m: MaskedLanguageModelling(m, context=["mri"]),
            "MaskedLanguageModelling: context: modalities .'mri'.; the model has .*",
        ),
        (
            lambda m: MaskedLanguageModelling(m, context=["ct", "report"]),
            "MaskedLanguageModelling: report cannot be its own context; name other modalities",
        ),
        (lambda m: MaskedLanguageModelling(m, mask_ratio=0.0), "mask_ratio 0.0; expected a number between 0 and 1"),
        (lambda m: MaskedLanguageModelling(m, mask_ratio=1.0), "mask_ratio 1.0; expected a number between 0 and 1"),
        (
            lambda m: MaskedReconstruction(m, modalities=["mri"]),
            "MaskedReconstruction: modalities .'mri'.; the model has .*",
        ),
        (
            lambda m: MaskedReconstruction(m, modalities=["report"]),
            "MaskedReconstruction of report: its encoder TextEncoder cannot leave tokens out; fix: a MaskableEncoder such "
            "as ViT, or take report out of `modalities`",
        ),
        (
            lambda m: MaskedReconstruction(m, modalities=["ct"], mask_ratio={"eeg": 0.5}),
            "mask_ratio .'eeg': 0.5.; expected a number between 0 and 1, or one for each of .'ct'.",
        ),
        (
            lambda m: MaskedReconstruction(m, modalities=["ct"], mask_ratio=Ramp(0.5, 1.0)),
            "mask_ratio Ramp.*; expected a number between 0 and 1, or one for each of .'ct'.",
        ),
        (
            lambda m: MaskedReconstruction(m, modalities=["ct"], mask_ratio=0.0),
            "mask_ratio 0.0; expected a number between 0 and 1, or one for each of .'ct'.",
        ),
        (lambda m: ModalityDropoutConsistency(m, p=0.0), "p is 0.0; expected a probability between 0 and 1"),
        (lambda m: ModalityDropoutConsistency(m, p=1.0), "p is 1.0; expected a probability between 0 and 1"),
        (
            lambda m: CrossModalContrast(m, pairs=["ct+mri", "x"]),
            "CrossModalContrast: pairs .'ct[+]mri', 'x'.; known: ct[+]xray, ct[+]eeg, ct[+]report, xray[+]eeg, "
            "xray[+]report, eeg[+]report",
        ),
        (
            lambda m: CrossModalContrast(m, pairs=[]),
            "CrossModalContrast needs a pair of modalities; the model has .'ct', 'xray', 'eeg', 'report'.",
        ),
        (lambda m: CrossModalContrast(m, temperature=1.01), r"temperature 1.01 is outside .0.01, 1.0."),
        (lambda m: CrossModalContrast(m, temperature=0.009), r"temperature 0.009 is outside .0.01, 1.0."),
        (lambda m: CrossEntropy(1.0), "label_smoothing is 1.0; fix: 0 for none, or a share below 1"),
        (lambda m: CrossEntropy(-0.1), "label_smoothing is -0.1; fix: 0 for none, or a share below 1"),
        (lambda m: Ramp(0.0, 1.0, until=0.0), "until is 0.0; fix: a share of the run above 0 and at most 1"),
        (lambda m: Ramp(0.0, 1.0, until=1.1), "until is 1.1; fix: a share of the run above 0 and at most 1"),
        (lambda m: Ramp(0.0, 1.0, shape="square"), "shape is 'square'; accepted: linear, cosine"),
        (lambda m: Supervised(m, modality_dropout=-0.1), "modality_dropout is -0.1; fix: a probability .*"),
        (
            lambda m: Supervised(m, modality_dropout=Ramp(0.0, 1.0)),
            "modality_dropout is Ramp.*; fix: a probability from 0 to below 1",
        ),
        (lambda m: Supervised(m, []), "tasks .. are not among the model's .*; fix: add_task first"),
        (lambda m: Supervised(m, ["age"]), "tasks .'age'. are not among the model's .*; fix: add_task first"),
    ],
)
def test_a_wrong_argument_is_told_the_way_out(model, make, text):
    with pytest.raises(ValueError, match=f"^{text}$"):
        make(model)


def test_bounds_are_those_that_work(model):
    assert DeepCluster(model, clusters=2).heads["ct"].out_features == 2
    assert Supervised(model, modality_dropout=Ramp(0.0, 0.9)).modality_dropout.end == 0.9
    assert torch.isfinite(CrossModalContrast(model, temperature=0.01).scale())


def test_a_model_that_cannot_do_it_is_told_what_is_needed(model):
    alone = MultimodalModel({"report": model.encoders["report"]}, ConcatFusion(("report",), 16), {})
    with pytest.raises(LeftOut, match="^needs an encoder that can leave tokens out; none of report can$"):
        MaskedReconstruction(alone)
    for make, text in (
        (Captioning, "Captioning needs a model of two modalities or more"),
        (ModalityDropoutConsistency, "ModalityDropoutConsistency needs a model of two modalities or more"),
        (CrossModalContrast, "CrossModalContrast needs a pair of modalities; the model has .'report'."),
        (
            FusedMaskedLanguage,
            "FusedMaskedLanguage: ConcatFusion reads pooled vectors; fix: tokens: all of a MaskedAttention",
        ),
    ):
        with pytest.raises(ValueError, match=f"^{text}$"):
            make(alone)


def hidden_by(model, make, seed, clock):
    """How many tokens, words or studies are asked for, and the loss, of a step with this seed at this time."""
    torch.manual_seed(0)
    objective = make(model).train()
    for part in objective.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    step = step_of(model, objective, ten_studies())
    with torch.no_grad():
        answer = objective(Step(model, step.batch, seed=seed, clock=clock, teacher=step._teacher))
    return float(answer["loss"]), objective


@pytest.mark.parametrize(
    "make",
    [
        lambda m: MaskedLanguageModelling(m, mask_ratio=Ramp(0.2, 0.8)),
        lambda m: FusedMaskedLanguage(m, mask_ratio=Ramp(0.2, 0.8)),
        lambda m: MaskedReconstruction(m, mask_ratio=Ramp(0.2, 0.8), decoder_dim=16, decoder_depth=1, decoder_heads=2),
        lambda m: Data2Vec(m, mask_ratio=Ramp(0.2, 0.8), layers=1, decoder_dim=16, decoder_depth=1, decoder_heads=2),
        lambda m: Supervised(m, modality_dropout=Ramp(0.1, 0.9)),
        lambda m: Supervised(m, modality_dropout=0.5, unimodal_weight=Ramp(0.1, 0.9)),
        lambda m: ModalityDropoutConsistency(m, dim=8),
        lambda m: Matching(m),
    ],
    ids=["language", "fused language", "reconstruction", "data2vec", "dropout", "alone", "consistency", "matching"],
)
def test_what_is_hidden_follows_from_the_seed_and_the_clock(model, make):
    early, late = Clock(0, 10), Clock(10, 10)
    first, objective = hidden_by(model, make, 0, early)
    assert hidden_by(model, make, 0, early)[0] == first
    assert any(hidden_by(model, make, seed, early)[0] != first for seed in (1, 2, 3))
    ramps = [value for value in vars(objective).values() if isinstance(value, (Ramp, dict)) and "Ramp" in repr(value)]
    assert (hidden_by(model, make, 0, late)[0] != first) == bool(ramps)
