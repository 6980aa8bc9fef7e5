"""Heads that begin as a linear probe: against scikit-learn on the vectors of the model itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.stacking import Part, stacked_readouts
from medssml.fusion import FactorFusion
from medssml.model import MultimodalModel, Task
from medssml.trainers.probe_first import FUSED, LEAST, fit_heads

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


def fusion_of(room: int) -> FactorFusion | None:
    """A fusion that is given the probes of so many numbers itself; None = the one of `toy_model`."""
    return FactorFusion(MODALITIES, 8, factors=room) if room else None


def fitted(model: MultimodalModel, loader: ToyLoader, measured: int = 0) -> tuple[EncodedStudies, dict[str, str]]:
    """Studies, and what is said of it: a head "other" with evidence, begun as probes of what "sick" says.

    measured: how many features of the CT are taken for such as are measured by hand.
    """
    model.add_task("other", Task(evidence=True))
    studies = encode_studies(model, loader)
    studies = replace(studies, targets=studies.targets | {"other": studies.targets["sick"]}, measured={"ct": measured})
    return studies, fit_heads(model, ["other"], studies)


def answers(model: MultimodalModel, loader: ToyLoader, without: tuple[str, ...] = ()) -> torch.Tensor:
    """(N,) logits of "other"."""
    with torch.no_grad():
        return torch.cat([model(batch.without(*without) if without else batch)["other"] for batch in loader])


def unprojected(model: MultimodalModel, studies: EncodedStudies) -> dict[str, np.ndarray]:
    """Modality -> the shortest vectors that its projection makes what the fusion is given."""
    return {
        m: np.linalg.lstsq(
            model.project[m].weight.detach().double().numpy(),
            (studies.encoded[m].pooled - model.project[m].bias).detach().double().numpy().T,
            rcond=LEAST,
        )[0].T
        for m in model.modalities
    }


@pytest.mark.parametrize("measured", [0, 4])
def test_a_head_with_evidence_answers_as_the_stack_of_its_probes(measured: int) -> None:
    """What is measured by hand shares one scale in them: a feature of a fifth counts as one."""
    model, loader = toy_model(), ToyLoader(studies=200, labels=0.8)
    with torch.no_grad():
        model.encoders["ct"].blocks[1].weight[:3] *= 0.2
    studies, said = fitted(model, loader, measured)
    alone = {m: np.flatnonzero(studies.has[:, column]) for column, m in enumerate(model.modalities)}
    raw = unprojected(model, studies)
    with torch.no_grad():
        pooled = model.fuse(studies.encoded, studies.present).pooled.double().numpy()
        logits = model.predict_from(model.fuse(studies.encoded, studies.present))["other"].double().numpy()
    both, y = studies.has.all(1), studies.targets["sick"]
    rows = np.concatenate([np.arange(200), np.flatnonzero(both), np.flatnonzero(both)])
    with torch.no_grad():
        once = [
            model.fuse(
                studies.encoded, studies.present, torch.from_numpy(studies.has & (np.arange(2) == column))
            ).pooled
            for column in range(2)
        ]
    seen = np.concatenate([pooled, *(part.double().numpy()[both] for part in once)])
    parts = {FUSED: Part(seen, rows, np.arange(len(rows)) < 200)}
    parts |= {m: Part(raw[m], alone[m], np.ones(len(alone[m]), bool), measured * (m == "ct")) for m in alone}
    stack = stacked_readouts(parts, y, studies.subject)
    expected = np.full(200, float(stack.bias[0]))
    expected += pooled @ stack.readouts[FUSED].weight[0] + stack.readouts[FUSED].bias
    for m, at in alone.items():
        expected[at] += raw[m] @ stack.readouts[m].weight[0] + stack.readouts[m].bias
    np.testing.assert_allclose(logits, expected, atol=0.02)
    assert "ct" in said["other"] and "stack" in said["other"]


def test_with_too_few_labels_a_head_stays_as_it_is() -> None:
    model = toy_model()
    before = model.heads["sick"].linear.weight.clone()
    said = fit_heads(model, ["sick"], encode_studies(model, ToyLoader(studies=8, labels=0.5)))
    torch.testing.assert_close(model.heads["sick"].linear.weight, before)
    assert "at random" in said["sick"]


@pytest.mark.parametrize("room", [0, 1])
def test_features_that_do_not_vary_get_no_weight(room: int) -> None:
    """Constant features behind a projection that hardly lets them through: their rounding errors say nothing."""
    model, loader = toy_model(fusion=fusion_of(room)), ToyLoader(studies=200)
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.blocks[1].weight[:4] = 0.0
            encoder.blocks[1].bias[:4] = torch.tensor([3.0, 17.0, -5.0, 0.7])
        for layer in model.project.values():
            left, values, right = torch.linalg.svd(layer.weight)
            values[-4:] = values[0] * 3e-4
            layer.weight.copy_(left @ torch.diag(values) @ right)
    fitted(model, loader)
    before = answers(model, loader)
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.blocks[1].bias[:4] += 1e-4
    assert (answers(model, loader) - before).abs().max() < 0.01 * before.std()


@pytest.mark.parametrize("room", [0, 1])
def test_a_direction_that_the_projection_all_but_loses_is_not_blown_up(room: int) -> None:
    """A head that stretches it back would change its answers beyond measure with the first step that moves the projection."""
    model, loader = toy_model(fusion=fusion_of(room)), ToyLoader(studies=200, labels=0.8)
    name = model.modalities[0]
    with torch.no_grad():
        u, s, v = torch.linalg.svd(model.project[name].weight)
        s[0], s[-1] = s[1], 5e-4 * s[1]
        model.project[name].weight.copy_(u @ torch.diag(s) @ v)
    studies, _ = fitted(model, loader)
    rest = model.modalities[1:]
    before, has = answers(model, loader, rest), torch.from_numpy(studies.has[:, 0])
    torch.manual_seed(0)
    with torch.no_grad():
        model.project[name].weight.add_(2e-3 * torch.randn_like(model.project[name].weight))
    assert before[has].std() > 0.05
    assert (answers(model, loader, rest) - before)[has].abs().max() < 0.2 * before[has].std()


@pytest.mark.parametrize("room", [0, 1])
def test_a_feature_that_hardly_varies_is_not_blown_up(room: int) -> None:
    """A probe looks at features in their standard deviations: of one that has next to none a large weight would come, and the
    first step that moves the projection would change the answers beyond measure."""
    model, loader = toy_model(fusion=fusion_of(room)), ToyLoader(studies=200, labels=0.8)
    with torch.no_grad():
        for encoder in model.encoders.values():
            encoder.blocks[1].weight[:4] *= 3e-3
    fitted(model, loader)
    before = answers(model, loader)
    torch.manual_seed(0)
    with torch.no_grad():
        for layer in model.project.values():
            layer.weight.add_(1e-3 * torch.randn_like(layer.weight))
    assert before.std() > 0.05
    assert (answers(model, loader) - before).abs().max() < 0.2 * before.std()


def test_a_head_of_classes_has_a_row_for_each_also_for_one_that_no_study_shows() -> None:
    model, loader = toy_model(), ToyLoader(studies=200)
    model.add_task("grade", Task("multiclass", 4))
    grade = np.digitize(loader.x[:, 0, 0].numpy(), [-0.5, 0.5]).astype(float)
    studies = encode_studies(model, loader)
    studies = replace(studies, targets=studies.targets | {"grade": grade})
    said = fit_heads(model, ["grade"], studies)
    assert said["grade"].startswith("its head begins as a linear probe, C = ")
    with torch.no_grad():
        logits = model.predict_from(model.fuse(studies.encoded, studies.present))["grade"]
    answers = logits.argmax(1).numpy()[studies.has[:, 0]]
    assert logits.shape == (200, 4) and set(answers) <= {0, 1, 2}
    assert float((answers == grade[studies.has[:, 0]]).mean()) > 0.5


def test_a_fusion_with_room_answers_as_the_stack_of_each_modality_alone() -> None:
    """Its head read something before, and had evidence of its own: none of that is left."""
    model, loader = toy_model(fusion=FactorFusion(MODALITIES, 8, factors=2)), ToyLoader(studies=200, labels=0.8)
    model.add_task("other", Task(evidence=True))
    with torch.no_grad():
        for parameter in [*model.heads["other"].parameters(), *model.fusion.parameters()]:
            parameter += 0.5
    studies = encode_studies(model, loader)
    studies = replace(studies, targets=studies.targets | {"other": 1 - studies.targets["sick"]})
    said = fit_heads(model, ["sick", "other"], studies)
    assert all("the fusion begins as a stack" in line and "ct" in line for line in said.values())
    alone = {
        m: Part(
            raw,
            np.flatnonzero(studies.has[:, column]),
            np.ones(int(studies.has[:, column].sum()), bool),
        )
        for column, (m, raw) in enumerate(unprojected(model, studies).items())
    }
    with torch.no_grad():
        logits = model.predict_from(model.fuse(studies.encoded, studies.present))
    for name in ("sick", "other"):
        stack = stacked_readouts(alone, studies.targets[name], studies.subject)
        expected = np.full(200, float(stack.bias[0]))
        for m, part in alone.items():
            expected[part.study] += part.x @ stack.readouts[m].weight[0] + stack.readouts[m].bias
        np.testing.assert_allclose(logits[name].double().numpy(), expected, atol=0.02)
    np.testing.assert_allclose(logits["sick"].numpy(), -logits["other"].numpy(), atol=0.05)


def test_a_fusion_without_room_for_all_tasks_says_so() -> None:
    model, loader = toy_model(fusion=FactorFusion(MODALITIES, 8, factors=1)), ToyLoader(studies=60)
    model.add_task("other", Task())
    said = fit_heads(model, ["sick", "other"], encode_studies(model, loader))
    assert "linear probe" in said["sick"] and said["sick"].endswith("the fusion has room for 1 numbers and not 2")
