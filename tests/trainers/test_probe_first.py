"""Heads that begin as a linear probe: against scikit-learn on the vectors of the model itself."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medssml.evaluation.studies import encode_studies
from medssml.trainers.probe_first import fit_heads

from .toy import MODALITIES, ToyLoader, toy_model


def test_the_model_answers_as_a_probe_of_its_own_vectors() -> None:
    model, loader = toy_model(), ToyLoader(studies=200, labels=0.8)
    studies = encode_studies(model, loader)
    said = fit_heads(model, ["sick"], studies)
    strength = float(said["sick"].rpartition("C = ")[2])

    def vectors(without: tuple[str, ...]) -> np.ndarray:
        batches = (batch.without(*without) if without else batch for batch in loader)
        with torch.no_grad():
            return torch.cat([model.fuse(model.encode(b), b.present).pooled for b in batches]).double().numpy()

    both = loader.present.all(1).numpy()
    x = np.vstack([vectors(()), vectors(MODALITIES[1:])[both], vectors(MODALITIES[:1])[both]])
    y = np.concatenate([loader.label, loader.label[both], loader.label[both]])
    known = np.isfinite(y)
    scaler = StandardScaler().fit(x[known])
    oracle = LogisticRegression(C=strength, max_iter=5000, tol=1e-8).fit(scaler.transform(x[known]), y[known])
    with torch.no_grad():
        logits = torch.cat([model(batch)["sick"] for batch in loader]).double().numpy()
    np.testing.assert_allclose(logits, oracle.decision_function(scaler.transform(vectors(()))), atol=0.01)


def test_with_too_few_labels_a_head_stays_as_it_is() -> None:
    model = toy_model()
    before = model.heads["sick"].linear.weight.clone()
    said = fit_heads(model, ["sick"], encode_studies(model, ToyLoader(studies=8, labels=0.5)))
    torch.testing.assert_close(model.heads["sick"].linear.weight, before)
    assert "at random" in said["sick"]
