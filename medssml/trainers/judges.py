"""How a validation is scored: by what the frozen embedding holds, or by the tasks that are learned."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from medssml.batch import Batch
from medssml.model import Task
from medssml.objectives.study_loss import CrossEntropy, wide
from medssml.trainers.monitors import COLLAPSED, LEAST_PER_CLASS, class_auroc, collapse_metrics, probe_metrics

if TYPE_CHECKING:
    from medssml.trainers.learner import Learner

log = logging.getLogger(__name__)

#: Fewer labelled validation studies than this, and not even their loss decides between checkpoints.
LEAST_LABELLED = 10


class Judge(Protocol):
    """Metrics of the validation studies, and what decides between checkpoints.

    Attributes:
        before_training: whether the weights that training begins with are a candidate, too.
    """

    before_training: bool

    def validate(self, learner: Learner, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics by `learner.validated`; gradients are off and everything is in eval mode."""
        ...

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """Higher is better; None where the metrics cannot decide."""
        ...


class EmbeddingJudge:
    """Mean of every term, the signs of collapse, and AUROC of a linear probe on the frozen embedding; decides nothing.

    Args:
        probe_studies: validation studies whose features are looked at, at most.
    """

    before_training = False

    def __init__(self, probe_studies: int = 2048) -> None:
        self.probe_studies = probe_studies

    def validate(self, learner: Learner, batches: Iterable[Batch]) -> dict[str, float]:
        """See `Judge.validate`."""
        sums: dict[str, float] = defaultdict(float)
        weights: dict[str, int] = defaultdict(int)
        features: list[Tensor] = []
        subjects: list[Tensor] = []
        targets: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches:
            step = learner.validation_step_of(batch)
            for name, value in learner.sum_of(step, learner.validated_objectives).items():
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

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """None: the last weights are kept."""
        return None


class TaskJudge:
    """ "loss", "auroc/TASK" (or "mse/TASK" of a regression) where there are enough labels, and "auroc", their mean.

    Args:
        tasks: name -> task, of those that are learned.
    """

    def __init__(self, tasks: Mapping[str, Task]) -> None:
        self.tasks = dict(tasks)
        # The head of a regression begins at the mean of the training targets: nothing that is worse is kept.
        self.before_training = any(task.kind == "regression" for task in self.tasks.values())

    def validate(self, learner: Learner, batches: Iterable[Batch]) -> dict[str, float]:
        """See `Judge.validate`."""
        outputs: dict[str, list[Tensor]] = defaultdict(list)
        targets: dict[str, list[Tensor]] = defaultdict(list)
        for batch in batches:
            step = learner.validation_step_of(batch)
            for task in self.tasks:
                if task in batch.targets:
                    outputs[task].append(wide(step.model.heads[task](step.fused)).cpu())
                    targets[task].append(batch.targets[task].cpu())
        metrics: dict[str, float] = {}
        for task in outputs:
            metrics |= task_metrics(task, self.tasks[task], torch.cat(outputs[task]), torch.cat(targets[task]))
        for name, prefix in (("loss", "supervised/loss/"), ("auroc", "auroc/")):
            values = [value for key, value in metrics.items() if key.startswith(prefix)]
            if values:
                metrics[name] = float(np.mean(values))
        return metrics

    def score(self, metrics: Mapping[str, float]) -> float | None:
        """Mean validation AUROC; the loss, negated, where no AUROC is defined; None where there are too few labels."""
        if "auroc" in metrics:
            return metrics["auroc"]
        return -metrics["loss"] if "loss" in metrics else None


def task_metrics(name: str, task: Task, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Loss and AUROC of one task over the labelled of N studies; without enough labels, less or nothing."""
    labelled = torch.isfinite(targets)
    logits, targets = logits[labelled], targets[labelled]
    if len(targets) < LEAST_LABELLED:
        return {}
    metrics = {f"supervised/loss/{name}": float(CrossEntropy()(task, logits, targets).mean())}
    if task.kind == "regression":
        return metrics | {f"mse/{name}": float((logits - targets).square().mean())}
    classes, counts = torch.unique(targets, return_counts=True)
    if len(classes) > 1 and int(counts.min()) >= LEAST_PER_CLASS:
        # Among the classes that validation studies have.
        scores = torch.stack([-logits, logits], 1) if task.kind == "binary" else logits.softmax(1)[:, classes.long()]
        metrics[f"auroc/{name}"] = class_auroc(targets.numpy(), scores.numpy(), classes.numpy())
    return metrics
