"""No public class without an example, so none that the contracts do not see; and classes that break them are seen."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medssml import encoders, fusion, objectives
from medssml.batch import Encoded, Fused, Inputs
from medssml.encoders import Encoder
from medssml.fusion import Fusion
from medssml.fusion.base import scatter
from medssml.objectives import Objective, Step
from medssml.objectives.study_loss import StudyLoss
from tests import examples
from tests.contracts import laws


def public(package: ModuleType, base: type) -> set[str]:
    """Names of the classes below `base` that a package exports and that can be built."""
    found = {name: getattr(package, name) for name in package.__all__}
    kinds = {name: kind for name, kind in found.items() if isinstance(kind, type) and issubclass(kind, base)}
    return {name for name, kind in kinds.items() if kind.__name__ not in ("Encoder", "MaskableEncoder", base.__name__)}


#: By `medssml.transfer` Python means the verb.
transfer = importlib.import_module("medssml.transfer")


def missing() -> dict[str, set[str]]:
    """Kind -> public classes that have no example."""
    model = examples.tiny_model()
    have: dict[str, Iterable[Any]] = {
        "encoders": (example.make() for example in examples.ENCODERS.values()),
        "fusion": (make(examples.MODALITIES, 16) for make in examples.FUSIONS.values()),
        "objectives": (make(model) for make in examples.OBJECTIVES.values()),
        "losses": (make() for make in examples.STUDY_LOSSES.values()),
    }
    wanted = {
        "encoders": public(encoders, Encoder),
        "fusion": public(fusion, Fusion),
        "objectives": public(objectives, Objective) | public(transfer, Objective),
        "losses": public(objectives, StudyLoss),
    }
    return {kind: wanted[kind] - {type(made).__name__ for made in have[kind]} for kind in wanted}


def test_every_public_class_has_an_example() -> None:
    assert not any(missing().values()), "add a line to tests/examples.py"


# What leaks, planted: each breaks one promise and looks like any other class.


class NormOverRows(Encoder):
    """Subtracts the mean over the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.dim = 24
        self.linear = nn.Linear(512, 24)

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        x = self.linear(inputs.flatten(1))  # type: ignore[union-attr]
        x = x - x.mean(0, keepdim=True)
        return Encoded(x[:, None], torch.ones(len(x), 1, dtype=torch.bool), x)


class MeanOverStudies(Fusion):
    """Adds the mean of the batch to each study."""

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        pooled = sum(
            (scatter(part.pooled, rows, len(present)) for _, part, rows in self.in_order(encoded, present)),
            torch.zeros(len(present), self.dim),
        )
        pooled = pooled + 0.01 * pooled.mean(0)
        return Fused(pooled[:, None], torch.ones(len(present), 1, dtype=torch.bool), pooled)


class ZeroFilled(Fusion):
    """Multiplies what is absent by 0 in place of leaving it out."""

    def forward(self, encoded: dict[str, Encoded], present: Tensor) -> Fused:
        pooled = torch.zeros(len(present), self.dim)
        for column, part, rows in self.in_order(encoded, present):
            pooled = pooled + scatter(part.pooled, rows, len(present)) / present[:, column].sum()
        return Fused(pooled[:, None], torch.ones(len(present), 1, dtype=torch.bool), pooled)


class CountsTheAbsent(Objective):
    """Averages absent studies in as zeros."""

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        if "ct" not in step.encoded:
            return None
        return {"loss": step.encoded["ct"].pooled.square().sum() / len(step.batch)}


class KnowsThePlace(Objective):
    """Weighs a study by where it stands in the batch."""

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        weight = torch.arange(len(step.batch), dtype=torch.float32)[:, None]
        return {"loss": (step.fused.pooled * weight).square().mean()}


class MeanOfTheBatch(Objective):
    """Never asks for its share of a step, so that with several batches in one each batch weighs the same."""

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        having = step.present.any(1)
        return {"loss": (step.fused.pooled[having][:, 0] - 3).square().mean()} if bool(having.any()) else None


class FullOfIdle(Objective):
    """Has a head that nothing depends on."""

    def __init__(self, model: Any, *, weight: float = 1.0) -> None:
        super().__init__(model, weight=weight)
        self.idle = nn.Linear(2, 2)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        having = step.present.any(1)
        return {"loss": step.fused.pooled[having].square().mean()} if bool(having.any()) else None


PLANTED: list[tuple[Sequence[Callable[[Any], None]], Any]] = [
    (laws.ENCODER_LAWS, examples.EncoderExample(NormOverRows, "ct")),
    (laws.FUSION_LAWS, lambda names, dim: MeanOverStudies(names, dim)),
    (laws.FUSION_LAWS, lambda names, dim: ZeroFilled(names, dim)),
    (laws.OBJECTIVE_LAWS, lambda model: CountsTheAbsent(model)),
    (laws.OBJECTIVE_LAWS, lambda model: KnowsThePlace(model)),
    (laws.OBJECTIVE_LAWS, lambda model: MeanOfTheBatch(model)),
    (laws.OBJECTIVE_LAWS, lambda model: FullOfIdle(model)),
]


@pytest.mark.parametrize(("of_its_kind", "example"), PLANTED)
def test_what_leaks_is_caught_by_the_laws_of_its_kind(
    of_its_kind: Sequence[Callable[[Any], None]], example: Any
) -> None:
    broken = []
    for law in of_its_kind:
        try:
            law(example)
        except AssertionError:
            broken.append(law.__name__)
        except (KeyError, TypeError):  # a class of this test is no public one, so no config can name it
            continue
    assert broken


@pytest.mark.parametrize(
    ("package", "planted", "kind"),
    [
        (encoders, NormOverRows, "encoders"),
        (fusion, MeanOverStudies, "fusion"),
        (objectives, KnowsThePlace, "objectives"),
    ],
)
def test_a_public_class_that_nobody_listed_is_told(
    monkeypatch: pytest.MonkeyPatch, package: ModuleType, planted: type, kind: str
) -> None:
    monkeypatch.setattr(package, "__all__", [*package.__all__, planted.__name__])
    monkeypatch.setattr(package, planted.__name__, planted, raising=False)
    assert missing()[kind] == {planted.__name__}


class Spread(Objective):
    """Without a parameter of its own, as the one of the researcher's tutorial: the laws take it."""

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        having = step.present.any(1)
        if not bool(having.any()):
            return None
        loss = (step.fused.pooled[having][:, 0] - 3).square().mean()
        return {"loss": loss * step.share(lambda other: other.present.any(1).sum())}


@pytest.mark.parametrize("law", [law for law in laws.OBJECTIVE_LAWS if "config" not in law.__name__])
def test_an_objective_without_parameters_is_an_objective(law: Callable[[Any], None]) -> None:
    law(lambda model: Spread(model))
