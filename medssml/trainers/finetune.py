"""Learning with labels: several tasks, of which a study may have any; the model whole, partly or wholly frozen."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.batch import Batch, Encoded
from medssml.losses.gather import global_sum
from medssml.model import MultimodalModel, Task
from medssml.objectives.draws import uniform
from medssml.trainers.learner import Learner
from medssml.trainers.monitors import LEAST_PER_CLASS, class_auroc
from medssml.trainers.settings import Optim

#: Fewer labelled validation studies than this, and not even their loss decides between checkpoints.
LEAST_LABELLED = 10


class FineTuner(Learner):
    """loss = mean over the tasks that are labelled in the batch of the mean over their labelled studies.

    With `unimodal_weight` w, the same loss of each modality seen alone is added, w times their mean: a rich modality
    that answers first leaves no gradient for a poor one, which then fails where it is all there is (the separate
    decoders of mmFormer, Zhang et al. 2022). It costs fusion passes only.

    Args:
        model: has a head for every task.
        tasks: which of its tasks to learn; None for all.
        optim: the optimiser.
        freeze: "none"; "encoders": projections, fusion and heads learn; "all_but_heads"; or n: the first n blocks of
            every encoder, and what comes before them, stay as they are.
        modality_dropout: each present modality of a study is hidden with this probability, never all of them.
        unimodal_weight: of the loss of each modality alone; 0 for none.
        class_weights: task -> weight of each class in the loss.
        label_smoothing: share of the target that goes to all classes alike; not for regression.
        seed: of dropout and modality dropout.
    """

    def __init__(
        self,
        model: MultimodalModel,
        tasks: Sequence[str] | None,
        optim: Optim,
        *,
        freeze: str | int = "none",
        modality_dropout: float = 0.0,
        unimodal_weight: float = 0.0,
        class_weights: Mapping[str, Sequence[float]] | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(model, optim, seed=seed)
        self.tasks: dict[str, Task] = _chosen(model, tasks)
        if not 0 <= modality_dropout < 1:
            raise ValueError(f"modality_dropout is {modality_dropout}; fix: a probability from 0 to below 1")
        if not unimodal_weight >= 0:
            raise ValueError(f"unimodal_weight is {unimodal_weight}; fix: 0 or a positive number")
        self.modality_dropout = modality_dropout
        self.unimodal_weight = unimodal_weight
        self.label_smoothing = label_smoothing
        self.class_weights = {name: torch.tensor(list(value)) for name, value in (class_weights or {}).items()}
        self.frozen = freeze_parts(model, freeze)
        for name, head in model.heads.items():
            head.requires_grad_(name in self.tasks)
        self.train()

    def train(self, mode: bool = True) -> FineTuner:
        """Train mode, in which frozen parts stay as in evaluation: no dropout, no new batch statistics."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """ "loss", and "loss/TASK" for every task that somebody in the batch, on any rank, is labelled for."""
        batch = self.model.align(batch)
        encoded = self.model.encode(batch)
        losses = self._task_losses(self._answers(self.model, encoded, batch, self._within(batch)), batch)
        if not losses:
            return {}
        numbers = {f"loss/{task}": loss.detach() for task, loss in losses.items()}
        loss = torch.stack(list(losses.values())).mean()
        alone = self._alone(encoded, batch) if self.unimodal_weight > 0 else {}
        if alone:
            numbers |= {f"loss/{name} alone": value.detach() for name, value in alone.items()}
            loss = loss + self.unimodal_weight * torch.stack(list(alone.values())).mean()
        return {"loss": loss, **numbers}

    def _alone(self, encoded: dict[str, Encoded], batch: Batch) -> dict[str, Tensor]:
        """Modality -> loss of the labelled studies that have it, answered from it alone; every rank asks for each."""
        losses = {}
        for column, modality in enumerate(self.model.modalities):
            within = torch.zeros_like(batch.present)
            within[:, column] = batch.present[:, column]
            asked = {
                task: torch.where(within[:, column], values, torch.nan)
                for task, values in batch.targets.items()
                if task in self.tasks
            }
            found = self._task_losses(self._answers(self.model, encoded, batch, within), replace(batch, targets=asked))
            if found:
                losses[modality] = torch.stack(list(found.values())).mean()
        return losses

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """ "loss", "auroc/TASK" (or "mse/TASK" of a regression) where there are enough labels, and "auroc", their mean."""
        outputs, targets = defaultdict(list), defaultdict(list)
        for batch in batches:
            for task, logits in self._logits(batch, self.validated).items():
                outputs[task].append(logits.float().cpu())
                targets[task].append(batch.targets[task].float().cpu())
        metrics: dict[str, float] = {}
        for task in outputs:
            metrics |= task_metrics(task, self.tasks[task], torch.cat(outputs[task]), torch.cat(targets[task]))
        for name in ("loss", "auroc"):
            values = [value for key, value in metrics.items() if key.startswith(f"{name}/")]
            if values:
                metrics[name] = float(np.mean(values))
        return metrics

    def score(self, metrics: dict[str, float]) -> float | None:
        """Mean validation AUROC; the loss, negated, where no AUROC is defined; None where there are too few labels."""
        if "auroc" in metrics:
            return metrics["auroc"]
        return -metrics["loss"] if "loss" in metrics else None

    def _logits(self, batch: Batch, model: MultimodalModel) -> dict[str, Tensor]:
        batch = model.align(batch)
        return self._answers(model, model.encode(batch), batch)

    def _answers(
        self, model: MultimodalModel, encoded: dict[str, Encoded], batch: Batch, within: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Task -> logits of the tasks that are learned, from what may be seen."""
        fused = model.fuse(encoded, batch.present, within)
        return {task: model.heads[task](fused) for task in self.tasks if task in batch.targets}

    def _within(self, batch: Batch) -> Tensor | None:
        if not self.training or self.modality_dropout == 0:
            return None
        return hide_modalities(batch.present, batch.key, self.modality_dropout, self.seed)

    def _task_losses(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        losses = {}
        for task in logits:
            targets = batch.targets[task]
            labelled = torch.isfinite(targets)
            # `where` before the loss and not a product after it: 0 * NaN is NaN.
            each = study_losses(
                self.tasks[task], logits[task].float(), torch.where(labelled, targets, 0.0), self.label_smoothing
            )
            weight = self._study_weights(task, targets, labelled)
            # The mean over the labelled studies of all ranks.
            total = global_sum(weight.sum())
            loss = global_sum(torch.where(labelled, each * weight, 0.0).sum())
            if total > 0:
                losses[task] = loss / total
        return losses

    def _study_weights(self, task: str, targets: Tensor, labelled: Tensor) -> Tensor:
        if task not in self.class_weights:
            return labelled.float()
        weights = self.class_weights[task].to(targets.device)
        return torch.where(labelled, weights[torch.where(labelled, targets, 0.0).long()], 0.0)


def study_losses(task: Task, logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """(B,) loss of each study: cross-entropy, or squared error of a regression.

    Args:
        logits: (B,) for a binary task or a regression, (B, K) for classes. targets: (B,), all finite.
        label_smoothing: s: the target becomes (1 - s) y + s / K.
    """
    if task.kind == "regression":
        return F.mse_loss(logits, targets, reduction="none")
    if task.kind == "binary":
        soft = targets * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, soft, reduction="none")
    return F.cross_entropy(logits, targets.long(), reduction="none", label_smoothing=label_smoothing)


def task_metrics(name: str, task: Task, logits: Tensor, targets: Tensor) -> dict[str, float]:
    """Loss and AUROC of one task over the labelled of N studies; without enough labels, less or nothing."""
    labelled = torch.isfinite(targets)
    logits, targets = logits[labelled], targets[labelled]
    if len(targets) < LEAST_LABELLED:
        return {}
    metrics = {f"loss/{name}": float(study_losses(task, logits, targets).mean())}
    if task.kind == "regression":
        return metrics | {f"mse/{name}": metrics[f"loss/{name}"]}
    classes, counts = torch.unique(targets, return_counts=True)
    if len(classes) == (2 if task.kind == "binary" else task.n_classes) and int(counts.min()) >= LEAST_PER_CLASS:
        scores = torch.stack([-logits, logits], 1) if task.kind == "binary" else logits.softmax(1)
        metrics[f"auroc/{name}"] = class_auroc(targets.numpy(), scores.numpy(), classes.numpy())
    return metrics


def hide_modalities(present: Tensor, key: Tensor, rate: float, seed: int = 0) -> Tensor:
    """(B, M) bool, the part of `present` (B, M) that stays: each modality is hidden at `rate`, never the last one.

    Drawn from each study's own key (B,), so that neither the batch nor the rank matters.
    """
    draw = uniform(key, present.shape[1], "modality dropout", seed=seed)
    kept = present & (draw >= rate)
    # Where all would go, the modality with the highest draw stays.
    best = torch.where(present, draw, -1.0).argmax(dim=1, keepdim=True)
    rescued = torch.zeros_like(present).scatter(1, best, True) & present
    return torch.where(kept.any(dim=1, keepdim=True), kept, rescued)


def freeze_parts(model: MultimodalModel, freeze: str | int) -> list[nn.Module]:
    """Makes part of `model` untrainable and returns that part.

    Raises:
        ValueError: no such choice, or an encoder without that many blocks.
    """
    model.requires_grad_(True)
    if freeze == "none":
        return []
    if freeze == "encoders":
        parts: list[nn.Module] = list(model.encoders.values())
    elif freeze == "all_but_heads":
        parts = [model.encoders, model.standardise, model.project, model.fusion]
    elif isinstance(freeze, int) or str(freeze).isdigit():
        parts = [part for name, encoder in model.encoders.items() for part in _first_blocks(name, encoder, int(freeze))]
    else:
        raise ValueError(f"freeze is {freeze!r}; accepted: none, encoders, all_but_heads, or a number of first blocks")
    for part in parts:
        part.requires_grad_(False)
    return parts


def _first_blocks(name: str, encoder: nn.Module, count: int) -> list[nn.Module]:
    """Freezes an encoder up to its block `count`, in the order in which its parameters were registered, which is that of
    the forward pass; returns the modules that are frozen as a whole.

    Blocks are the longest list of modules in it, or layer1, layer2, ... of a residual network.
    """
    lists = [list(module) for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    stages = [module for path, module in encoder.named_modules() if re.fullmatch(r"(.*\.)?layer\d+", path)]
    blocks = max([*lists, stages], key=len)
    if count > len(blocks):
        raise ValueError(
            f"freeze={count}, but the encoder of {name}, {type(encoder).__name__}, has {len(blocks)} blocks; "
            f"fix: at most that many, or freeze=encoders"
        )
    if count == 0:
        return []
    order = list(encoder.parameters())
    inside = {id(parameter) for parameter in blocks[count - 1].parameters()}
    end = max(place for place, parameter in enumerate(order) if id(parameter) in inside)
    frozen = {id(parameter) for parameter in order[: end + 1]}
    for parameter in order[: end + 1]:
        parameter.requires_grad_(False)
    owned = ((module, [id(p) for p in module.parameters()]) for module in encoder.modules())
    return [module for module, ids in owned if ids and frozen.issuperset(ids)]


def _chosen(model: MultimodalModel, tasks: Sequence[str] | None) -> dict[str, Task]:
    chosen = list(model.tasks) if tasks is None else list(tasks)
    missing = [task for task in chosen if task not in model.tasks]
    if missing or not chosen:
        raise ValueError(
            f"tasks {missing or chosen} are not among the model's {list(model.tasks)}; fix: add_task first"
        )
    return {task: model.tasks[task] for task in chosen}
