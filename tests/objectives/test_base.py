"""What all objectives share: defaults, what remains of their arguments without some modalities, and refusals."""

from __future__ import annotations

import pytest
import torch

from medssml.config import LeftOut, describe
from medssml.objectives import (
    BagOfWords,
    Captioning,
    Clock,
    CrossModalContrast,
    Data2Vec,
    DeepCluster,
    FusedMaskedLanguage,
    MaskedLanguageModelling,
    MaskedReconstruction,
    Matching,
    MoCoV3,
    ModalityDropoutConsistency,
    Objective,
    Ramp,
    SimCLR,
    Supervised,
)
from medssml.objectives.base import chosen
from medssml.objectives.clock import ends
from tests.examples import MODALITIES, tiny_model


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
    assert (supervised.modality_dropout, supervised.unimodal_weight, supervised.loss.label_smoothing) == (0, 0, 0)
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
        (lambda m: Captioning(m, report="ct"), "Captioning of ct: its encoder is ViT, no TextEncoder"),
        (lambda m: Captioning(m, report="pet"), "Captioning: report: modalities .'pet'.; the model has .*"),
        (
            lambda m: Supervised(m, modality_dropout=1.0),
            "modality_dropout is 1.0; fix: a probability from 0 to below 1",
        ),
        (lambda m: Supervised(m, unimodal_weight=-0.1), "unimodal_weight is -0.1; fix: 0 or a positive number"),
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
