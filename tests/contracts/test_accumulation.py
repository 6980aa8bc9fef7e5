"""Where the loss is a mean over studies, tokens or words, two batches of one step have the loss of the whole."""

from __future__ import annotations

import copy

import pytest
import torch

from medssml.objectives import Step
from tests.examples import OBJECTIVES, batch_of, step_of, ten_studies, tiny_model

#: Their terms do not depend on what else is in the batch; those that compare studies have other negatives in a part.
SEPARABLE = (
    "reconstruction",
    "language",
    "labels",
    "data2vec",
    "captioning",
    "DeepCluster",
    "XDC",
    "SeLaVi",
    "feature reconstruction",
    "DINO",
    "GPT",
    "embedding prediction",
    "cyclic translation",
    "language through the fusion",
    "pseudo-labels of a part",
    "labels, blended",
    "unimodal teachers",
    "transfer of logits",
    "transfer of privileged information",
    "transfer of features",
)


@pytest.mark.parametrize("name", SEPARABLE)
@pytest.mark.parametrize("cut", [1, 3, 7])
def test_unequal_batches_of_a_step_have_the_loss_of_the_whole(name: str, cut: int) -> None:
    model = tiny_model().eval()
    torch.manual_seed(1)
    objective, studies = OBJECTIVES[name](model).eval(), ten_studies()
    whole = step_of(model, objective, studies)
    expected = (
        copy.deepcopy(objective)(step_of(model, objective, studies)) if objective.teacher is None else objective(whole)
    )
    parts = [batch_of(studies[:cut], views=objective.views), batch_of(studies[cut:], views=objective.views)]
    found = [objective(Step(model, part, group=parts, teacher=whole._teacher, clock=whole.clock)) for part in parts]
    mean = sum(float(answer["loss"]) for answer in found if answer is not None) / len(parts)
    assert mean == pytest.approx(float(expected["loss"]), rel=1e-4)
