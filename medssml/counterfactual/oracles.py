"""Models whose impact is known exactly, put through the same code as any model: `medssml impact --self-test`.

Each gate is a model of two binary modalities that answers its gate with certainty. Inputs are uniform, a modality outside a
coalition is taken from every study in turn, the value is the probability of the predicted class. The expected numbers
follow by enumeration.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medssml.batch import Batch, Encoded, Fused
from medssml.counterfactual.answers import Intervention, study_answers
from medssml.counterfactual.decompose import emap
from medssml.counterfactual.interventions import coalition_values
from medssml.counterfactual.measures import ShapleyValue
from medssml.counterfactual.shapley import checked_shapley, interaction_share, interactions
from medssml.counterfactual.summary import Resampling, mean_interval
from medssml.counterfactual.values import Value
from medssml.evaluation.encoded_studies import EncodedStudies, encode_studies
from medssml.evaluation.subsets import predict_subsets, predict_within
from medssml.fusion import Fusion
from medssml.model import MultimodalModel, Task

TASK = "gate"
#: Logit of a certain answer: its sigmoid is 1 in double precision.
CERTAIN = 40.0
TOLERANCE = 1e-6
#: Lowest share of replicates in which the interval of pure noise must hold 0, at a nominal 95 %.
LEAST_COVERAGE = 0.93

Formula = Callable[[Tensor], Tensor]


class FormulaFusion(Fusion):
    """A fusion that is a formula: (B, M) numbers, 0 where absent, -> (B,) logits."""

    def __init__(self, modalities: tuple[str, ...], formula: Formula) -> None:
        super().__init__(modalities, 1)
        self.formula = formula
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        """Fused whose pooled (B, 1) is the logit."""
        numbers = torch.zeros(present.shape, dtype=torch.float32)
        for column, part, rows in self.in_order(encoded, present):
            numbers[rows, column] = part.pooled[:, 0]
        return Fused(numbers.unsqueeze(-1), present, self.scale * self.formula(numbers).unsqueeze(-1))


class Number(nn.Module):
    """An encoder of inputs that are one number."""

    dim = 1

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, 1) from (n, 1)."""
        return inputs


def formula_model(modalities: tuple[str, ...], formula: Formula) -> MultimodalModel:
    """A model of one number per modality that answers with `formula`."""
    model = MultimodalModel({m: Number() for m in modalities}, FormulaFusion(modalities, formula), {TASK: Task()})
    with torch.no_grad():
        for layer in [*model.project.values(), model.heads[TASK].linear]:
            layer.weight.fill_(1.0)  # type: ignore[union-attr, operator]
            layer.bias.zero_()  # type: ignore[union-attr, operator]
    return model.eval()


def number_batch(
    numbers: Tensor, modalities: tuple[str, ...], *, subject: Tensor | None = None, y: Tensor | None = None
) -> Batch:
    """A batch of studies that are (N, M) numbers, NaN where absent."""
    present = ~numbers.isnan()
    count = len(numbers)
    return Batch(
        inputs={m: numbers[present[:, j], j, None] for j, m in enumerate(modalities) if bool(present[:, j].any())},
        present=present,
        modalities=modalities,
        study_id=tuple(f"s{i}" for i in range(count)),
        subject=torch.arange(count) if subject is None else subject,
        key=torch.arange(count),
        targets={} if y is None else {TASK: y.float()},
    )


class Gate(NamedTuple):
    """A gate and what must come out: inputs (N, 2), formula, and the numbers of the table in docs/methods/impact.md."""

    name: str
    inputs: tuple[tuple[int, int], ...]
    formula: Formula
    phi: tuple[float, float]
    interaction: float
    abs_of_mean: float
    mean_of_abs: float
    emap_accuracy: float


_ALL = ((0, 0), (0, 1), (1, 0), (1, 1))
_SAME = ((0, 0), (1, 1))


def _certain(truth: Callable[[Tensor, Tensor], Tensor]) -> Formula:
    return lambda x: torch.where(truth(x[:, 0] > 0.5, x[:, 1] > 0.5), CERTAIN, -CERTAIN)


GATES = (
    Gate("unique: Y = X1", _ALL, _certain(lambda a, b: a), (0.5, 0.0), 0.0, 0.0, 0.0, 1.0),
    Gate("XOR", _ALL, _certain(torch.logical_xor), (0.25, 0.25), 0.5, 1.0, 1.0, 0.5),
    Gate("AND", _ALL, _certain(torch.logical_and), (0.1875, 0.1875), 0.125, 1 / 3, 1 / 3, 1.0),
    Gate("OR", _ALL, _certain(torch.logical_or), (0.1875, 0.1875), 0.125, 1 / 3, 1 / 3, 1.0),
    Gate("redundant, reads X1 only", _SAME, _certain(lambda a, b: a), (0.5, 0.0), 0.0, 0.0, 0.0, 1.0),
    Gate("redundant, model = AND", _SAME, _certain(torch.logical_and), (0.25, 0.25), 0.0, 0.0, 0.5, 1.0),
)


class Check(NamedTuple):
    """One comparison of the self-test."""

    oracle: str
    quantity: str
    expected: float
    found: float
    agrees: bool


def check_gate(gate: Gate) -> list[Check]:
    """Every number of a gate, expected and found."""
    modalities = ("x1", "x2")
    model = formula_model(modalities, gate.formula)
    studies = encode_studies(model, [number_batch(torch.tensor(gate.inputs, dtype=torch.float32), modalities)])
    values = gate_values(model, studies)
    phi, share = checked_shapley(values).mean(axis=0), interaction_share(values)
    found = {
        "phi x1": (gate.phi[0], phi[0]),
        "phi x2": (gate.phi[1], phi[1]),
        "interaction": (gate.interaction, interactions(values)[:, 0, 1].mean()),
        "share, abs of mean": (gate.abs_of_mean, share["abs_of_mean"]),
        "share, mean of abs": (gate.mean_of_abs, share["mean_of_abs"]),
        "EMAP accuracy": (gate.emap_accuracy, emap_accuracy(model, studies)),
    }
    return [
        Check(gate.name, name, expected, float(value), bool(abs(value - expected) < TOLERANCE))
        for name, (expected, value) in found.items()
    ]


def gate_values(model: MultimodalModel, studies: EncodedStudies) -> np.ndarray:
    """v(S), (N, 2^M), where every study in turn stands in for what is outside S: an exact expectation."""
    predictions = predict_subsets(model, studies, [TASK])
    outputs, count = predictions.observed(predictions.outputs[TASK]), len(studies)
    value = Value.of("binary", "predicted", outputs, predictions.target(TASK))
    donors = np.broadcast_to(np.arange(count)[None, :, None], (count, count, len(studies.modalities)))
    return coalition_values(model, studies, TASK, value, donors, value(outputs, np.arange(count)))


def emap_accuracy(model: MultimodalModel, studies: EncodedStudies) -> float:
    """Share of studies for which the additive part of the model gives the model's answer."""
    count = len(studies)
    first, second = torch.meshgrid(torch.arange(count), torch.arange(count), indexing="ij")
    source = torch.stack([first.reshape(-1), second.reshape(-1)], dim=1)
    logits = predict_within(model, studies, studies.present[source[:, 0]], source, source[:, 0])[TASK]
    grid = 1 / (1 + np.exp(-logits.astype(np.float64))).reshape(count, count)
    # A projection on the edge, as that of XOR, decides for neither class.
    return float(((emap(grid) > 0.5 + TOLERANCE) == (np.diag(grid) > 0.5)).mean())


def noise_coverage(replicates: int = 200, subjects: int = 120, seed: int = 0) -> float:
    """How often the 95 % interval of the mean Shapley value of a modality that is pure noise holds 0.

    Each replicate is a new cohort, two studies per subject with correlated noise, and a model that has overfitted to
    the noise: its answer moves with it, as often up as down. By symmetry the mean over the population is 0.
    """
    modalities, held = ("signal", "noise"), 0
    for replicate in range(replicates):
        rng = torch.Generator().manual_seed(seed * 100_003 + replicate)
        person = torch.arange(subjects).repeat_interleave(2)
        numbers = torch.randn(subjects, 2, generator=rng)[person] + 0.5 * torch.randn(2 * subjects, 2, generator=rng)
        weight = 0.3 + 0.7 * torch.rand((), generator=rng)
        model = formula_model(modalities, lambda x, w=weight: 1.5 * x[:, 0] + w * x[:, 1])  # type: ignore[misc]
        studies = encode_studies(model, [number_batch(numbers, modalities, subject=person)])
        # Not a background of the same studies: their noise would cancel by construction, and the test would be empty.
        how = Intervention("absent", "model", draws=2, seed=replicate)
        phi = ShapleyValue()(study_answers(model, studies, TASK, intervention=how, asks=()))[:, 1]
        held += mean_interval(phi[None], Resampling(studies.subject, 400, replicate)).holds(0.0)
    return held / replicates


def self_test(replicates: int = 200) -> list[Check]:
    """All oracles. The impact of modalities is to be believed where every one agrees."""
    checks = [check for gate in GATES for check in check_gate(gate)]
    coverage = noise_coverage(replicates)
    return [*checks, Check("pure noise", "coverage of 0", 0.95, coverage, coverage >= LEAST_COVERAGE)]
