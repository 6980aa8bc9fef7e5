"""Learning without labels: the sum of the objectives that a user listed."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.step import Step
from medssml.trainers.learner import Learner
from medssml.trainers.monitors import COLLAPSED, collapse_metrics, probe_metrics
from medssml.trainers.settings import Optim

log = logging.getLogger(__name__)


class Pretrainer(Learner):
    """loss = sum over objectives of weight * objective(step); a term that a batch does not define is left out.

    Args:
        model: what is pretrained.
        objectives: what is asked of it; a hybrid method is a list of two.
        optim: the optimiser. seed: of dropout and of the objectives' draws.
        probe_studies: validation studies whose features the monitors look at, at most.
    """

    def __init__(
        self,
        model: MultimodalModel,
        objectives: Sequence[Objective],
        optim: Optim,
        *,
        seed: int = 0,
        probe_studies: int = 2048,
    ) -> None:
        super().__init__(model, optim, seed=seed)
        if not objectives:
            raise ValueError("no objective; fix: list at least one under `objectives`")
        self.objectives = nn.ModuleList(objectives)
        self.names = objective_names(objectives)
        self.probe_studies = probe_studies

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", and "OBJECTIVE/..." for what each objective reports."""
        return self._sum(Step(self.model, batch, seed=self.seed))

    def _sum(self, step: Step) -> dict[str, Tensor]:
        numbers: dict[str, Tensor] = {}
        losses = []
        for name, objective in zip(self.names, self.objectives, strict=True):
            found = objective(step)
            if not found:
                continue
            losses.append(objective.weight * found["loss"])
            numbers |= {f"{name}/{key}": value.detach() for key, value in found.items()}
        return {"loss": torch.stack(losses).sum(), **numbers} if losses else numbers

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Mean of every term, the signs of collapse, and AUROC of a linear probe on the frozen embedding."""
        sums: dict[str, float] = defaultdict(float)
        weights: dict[str, int] = defaultdict(int)
        features: list[Tensor] = []
        subjects: list[Tensor] = []
        targets: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches:
            step = Step(self.validated, batch, seed=self.seed)
            for name, value in self._sum(step).items():
                sums[name] += float(value) * len(batch)
                weights[name] += len(batch)
            if sum(len(part) for part in features) < self.probe_studies:
                features.append(step.fused.pooled.float().cpu())
                subjects.append(batch.subject.cpu())
                for task, values in batch.targets.items():
                    targets[task].append(values.cpu())

        metrics = {name: sums[name] / weights[name] for name in sums}
        if features:
            embedding = torch.cat(features)
            metrics |= collapse_metrics(embedding)
            metrics |= probe_metrics(embedding, {t: torch.cat(v) for t, v in targets.items()}, torch.cat(subjects))
        if metrics.get("feature_spread", 1.0) < COLLAPSED:
            log.warning("the embedding has collapsed: spread %.3f, 1 is even", metrics["feature_spread"])
        return metrics


def objective_names(objectives: Iterable[nn.Module]) -> list[str]:
    """What history.csv calls each objective: its class name in snake case, numbered from the second of a kind on."""
    names: list[str] = []
    for objective in objectives:
        name = re.sub(r"(?<!^)(?=[A-Z])", "_", type(objective).__name__).lower()
        same = sum(1 for known in names if known == name or known.startswith(f"{name}_"))
        names.append(name if same == 0 else f"{name}_{same + 1}")
    return names
