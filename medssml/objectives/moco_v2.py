"""MoCo v2: one look at a study finds the other, seen by a momentum teacher, among a long queue of earlier studies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.losses.info_nce import InfoNCE, cosine_logits, cross_entropy_terms
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen, mean_of_terms
from medssml.objectives.clock import Clock, Ramp
from medssml.objectives.queue import Queue
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class MoCoV2(Objective):
    """loss = mean over studies of  -log exp(q . k / t) / (exp(q . k / t) + sum over the queue of exp(q . k_i / t))

    q is the student's projection of the first look, k the teacher's of the second; the queue holds the keys of earlier
    steps, so that the number of negatives does not hang on the batch. Computed within each modality, each with a queue of
    its own; every study of every modality counts the same. Keys of the same subject, or of an identical input, are no
    negatives. The queue and the teacher are part of a run's state.

    [1] He, Fan, Wu, Xie, Girshick, Momentum contrast for unsupervised visual representation learning, CVPR 2020.
    [2] Chen, Fan, Girshick, He, Improved baselines with momentum contrastive learning, 2020: the head of two layers, t.

    Args:
        model: the model.
        modalities: of which; all by default.
        dim: of the projection. temperature: t; 0.2 as in [2].
        queue: keys that are kept of each modality; 65,536 as in [1], and not much more than there are studies.
        momentum: of the teacher; 0.999 as in [1].
        batch_norm: before the projection, of all modalities or of those named.
        weight: in the sum of objectives.

    Raises:
        ValueError: a temperature or a queue that is not positive.
    """

    views = 2

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.2,
        queue: int = 65536,
        momentum: float | Ramp = 0.999,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; expected a positive number")
        self.teacher = momentum
        self.temperature = temperature
        self.space = SharedSpace(model.dim, dim, chosen(model, modalities, "MoCoV2"), batch_norm)
        places = {name: model.modalities.index(name) for name in self.space.modalities}
        self.queues = nn.ModuleDict({name: Queue(queue, dim, [place]) for name, place in places.items()})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the share of studies whose nearest key is their own."""
        found = {name: self._contrast(step, name) for name in self.space.modalities}
        return mean_of_terms(found, step, self._count)

    def after_step(self, clock: Clock) -> None:
        """The keys of the step enter the queues."""
        for queue in self.queues.values():
            cast(Queue, queue).move()

    def _contrast(self, step: Step, name: str) -> InfoNCE:
        space, queue = cast(MoCoV2, step.twin(self)).space, cast(Queue, self.queues[name])
        with torch.no_grad():
            keys = space(name, step.teacher.views[1].pooled_of_all(name))
        queries = self.space(name, step.pooled_of_all(name))

        # The first column is a study's own key, the others are the queue.
        own = (queries * keys).sum(1, keepdim=True) / self.temperature
        logits = torch.cat([own, cosine_logits(queries, queue.vectors, 1 / self.temperature)], dim=1)
        match, negative = self._masks(step, name)
        if self.training:
            column = step.model.modalities.index(name)
            queue.hold(keys, step.everyone, step.everyone.rows(column), step.clock.step)
        return cross_entropy_terms(logits, match, negative)

    def _masks(self, step: Step, name: str) -> tuple[Tensor, Tensor]:
        """(n, 1 + K) bool each: a study's own key, and the keys that are its negatives."""
        column = step.model.modalities.index(name)
        alike = cast(Queue, self.queues[name]).alike(step.everyone, step.everyone.rows(column), [column])
        own = alike.new_ones(len(alike), 1)
        return torch.cat([own, torch.zeros_like(alike)], dim=1), torch.cat([~own, ~alike], dim=1)

    def _count(self, step: Step) -> Tensor:
        return torch.stack([self._masks(step, name)[1].any(1).sum() for name in self.space.modalities]).sum()
