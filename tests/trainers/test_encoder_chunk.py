"""`trainer.encoder_chunk`: a step of a whole batch whose encoders see a few studies at a time (GradCache)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medssml.objectives import (
    BagOfWords,
    CrossModalContrast,
    MaskedLanguageModelling,
    MaskedReconstruction,
    MoCoV3,
    SimCLR,
    Supervised,
)
from medssml.trainers.learner import Learner
from medssml.trainers.loop import fit
from medssml.trainers.settings import Optim, TrainerSettings
from tests.encoders.test_chunks import Alive, graph_kept
from tests.examples import MODALITIES, batch_of, study, ten_studies, tiny_model
from tests.trainers.toy import ToyLoader, toy_model, tuner

#: What shares a pass, what has a pass of its own, what looks twice, what asks a teacher, and labels.
OBJECTIVES = {
    "contrast": lambda model: [CrossModalContrast(model, dim=8)],
    "hybrid": lambda model: [
        CrossModalContrast(model, dim=8),
        MaskedReconstruction(model, decoder_dim=16, decoder_depth=1, decoder_heads=2),
        MaskedLanguageModelling(model),
        BagOfWords(model, modalities=["ct", "xray"], pairs=16),
        Supervised(model),
    ],
    "looks and a teacher": lambda model: [SimCLR(model, dim=8), MoCoV3(model, dim=8, momentum=0.9)],
}


def learner_of(label: str, chunk: int | None, dropout: bool) -> Learner:
    torch.manual_seed(0)
    model = tiny_model()
    learner = Learner(model, OBJECTIVES[label](model), Optim())
    learner.encode_in_chunks(chunk)
    for part in learner.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.3 if dropout else 0.0
    # Double, as what is summed in another order differs by rounding.
    return learner.double()


def a_step(learner: Learner, studies) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The numbers, and the gradients by name."""
    torch.manual_seed(7)
    numbers = learner.terms(batch_of(studies, torch.float64, views=learner.views))
    numbers["loss"].backward()
    found = {name: p.grad for name, p in learner.named_parameters() if p.grad is not None}
    return {name: value.detach() for name, value in numbers.items()}, found


@pytest.mark.parametrize("label", OBJECTIVES)
def test_the_loss_and_all_gradients_are_those_of_the_whole_batch(label: str) -> None:
    whole = a_step(learner_of(label, None, dropout=False), ten_studies())
    chunked = a_step(learner_of(label, 2, dropout=False), ten_studies())
    assert {name.split(".")[2] for name in whole[1] if name.startswith("model.encoders.")} == set(MODALITIES)
    for one, other in zip(chunked, whole, strict=True):
        assert list(one) == list(other)
        for name in one:
            torch.testing.assert_close(one[name], other[name], msg=name)


@pytest.mark.parametrize("label", OBJECTIVES)
def test_with_dropout_the_second_pass_is_the_first_one_again(label: str) -> None:
    """Bit for bit what the same chunks give that keep their graph."""
    with graph_kept():
        expected = a_step(learner_of(label, 2, dropout=True), ten_studies())
    found = a_step(learner_of(label, 2, dropout=True), ten_studies())
    for one, other in zip(found, expected, strict=True):
        assert list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)
    without = a_step(learner_of(label, 2, dropout=False), ten_studies())
    assert not torch.equal(found[0]["loss"], without[0]["loss"])


def test_activations_of_the_encoders_do_not_grow_with_the_batch() -> None:
    most = {}
    for studies, chunk in ((6, 2), (18, 2), (18, None)):
        learner = learner_of("hybrid", chunk, dropout=True)
        alive = Alive(learner.model.encoders)
        a_step(learner, [study(n, MODALITIES) for n in range(studies)])
        most[studies, chunk] = alive.most
    assert most[18, 2] == most[6, 2]
    assert most[18, None] > 8 * most[18, 2]


def test_a_run_learns_the_same_weights(tmp_path: Path) -> None:
    found = []
    for chunk in (None, 3):
        learner = tuner(toy_model(dropout=0.0), None, Optim(lr=0.01))
        settings = TrainerSettings(max_epochs=2, device="cpu", precision="32", encoder_chunk=chunk)
        fit(learner, ToyLoader(), tmp_path / str(chunk), settings)
        found.append(learner.model.state_dict())
    for name, value in found[0].items():
        torch.testing.assert_close(found[1][name], value, rtol=1e-4, atol=1e-6, msg=name)


def test_batch_norms_in_an_encoder_are_refused_and_frozen_ones_are_not(tmp_path: Path) -> None:
    model = toy_model()
    encoder = model.encoders["ct"]
    encoder.blocks[0] = nn.Sequential(encoder.blocks[0], nn.BatchNorm1d(8))
    settings = TrainerSettings(max_steps=2, device="cpu", encoder_chunk=3)
    with pytest.raises(ValueError, match="encoder_chunk is 3, and the encoder of ct has a BatchNorm1d.* fix: "):
        fit(tuner(model, None, Optim()), ToyLoader(), tmp_path / "a", settings)
    fit(tuner(model, None, Optim(), freeze="encoders"), ToyLoader(), tmp_path / "b", settings)
    whole = TrainerSettings(max_steps=2, device="cpu")
    fit(tuner(model, None, Optim()), ToyLoader(), tmp_path / "c", whole)
