"""Feature reconstruction against its errors, written out study by study."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.objectives import FeatureReconstruction, Step
from tests.examples import batch_of, study, ten_studies, tiny_model


def test_each_modality_of_a_study_is_asked_of_its_joint_vector():
    model = tiny_model().eval()
    objective = FeatureReconstruction(model).eval()
    step = Step(model, batch_of(ten_studies()))
    fused = model.fuse(model.encode(step.batch), step.batch.present).pooled
    means = []
    for name, part in step.encoded.items():
        errors = []
        for place, number in enumerate(step.batch.rows(name).tolist()):
            x = part.pooled[place].detach().double().numpy()
            target = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
            found = objective.decoders[name](fused[number]).detach().double().numpy()
            errors.append(float(np.mean((found - target) ** 2)))
        means.append(np.mean(errors))
    assert float(objective(step)["loss"].detach()) == pytest.approx(float(np.mean(means)), rel=1e-4)


def test_the_target_has_no_gradient():
    """A fusion that sees nothing: whatever is predicted, no encoder can make its own target easier."""
    model = tiny_model().eval()
    objective = FeatureReconstruction(model, modalities=["ct"])
    step = Step(model, batch_of([study(0, ("ct",))]))
    step.__dict__["fused"] = step.fused._replace(pooled=step.fused.pooled.detach())
    loss = objective(step)["loss"]
    gradients = torch.autograd.grad(loss, list(model.encoders["ct"].parameters()), allow_unused=True)
    assert all(gradient is None for gradient in gradients)
