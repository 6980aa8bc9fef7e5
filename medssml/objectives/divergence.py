"""How far one answer to a task lies from another: what distillation makes small."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from medssml.model import Task


def tempered_divergence(task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(B,) T^2 KL(softmax(teacher / T) | softmax(student / T)); of a regression the squared error in standard deviations."""
    if task.kind == "regression":
        return ((student - teacher) / task.sd).square().float()
    s, t = (_log_probabilities(part / temperature) for part in (student, teacher))
    return temperature**2 * (t.exp() * (t - s)).sum(1)


def soft_label_divergence(task: Task, student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """(B,) KL(softmax(teacher / T) | softmax(student)): the cross-entropy under soft labels but for their own entropy, which has
    no gradient; of a regression as `tempered_divergence`."""
    if task.kind == "regression":
        return tempered_divergence(task, student, teacher, temperature)
    soft, said = _log_probabilities(teacher / temperature), _log_probabilities(student)
    return (soft.exp() * (soft - said)).sum(1)


def _log_probabilities(logits: Tensor) -> Tensor:
    """(B, K) of (B, K), or (B, 2) of the logits (B,) of a binary task."""
    if logits.ndim == 1:
        return torch.stack([F.logsigmoid(-logits), F.logsigmoid(logits)], dim=1)
    return logits.log_softmax(1)
