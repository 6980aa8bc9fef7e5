"""Transfer by logits: the student answers as the teacher does, how sure it is included."""

from __future__ import annotations

from collections.abc import Sequence

from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.divergence import tempered_divergence
from medssml.transfer.answers import AnswerTransfer


class LogitTransfer(AnswerTransfer):
    """loss = mean over tasks and studies that both see of  T^2 KL(softmax(teacher / T) | softmax(student / T))

    The factor T^2 keeps the gradient as large as at T = 1 [1]. Across modalities no label is needed for the studies that
    both see [2]. A regression: squared error in standard deviations.

    [1] Hinton, Vinyals, Dean, Distilling the knowledge in a neural network, 2015. T = 4 as in common use.
    [2] Gupta, Hoffman, Malik, Cross modal distillation for supervision transfer, CVPR 2016.

    Args:
        model, source, tasks, target, weight: as of `AnswerTransfer`.
        temperature: T.
    """

    imitation = staticmethod(tempered_divergence)

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        temperature: float = 4.0,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, tasks=tasks, temperature=temperature, target=target, weight=weight)
