"""DINO: from any look at a study, and from small parts of it, what a teacher makes of whole looks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.encoders import Encoder
from medssml.losses import centred_and_sharpened, global_sum, mean_over_pairs
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Clock, Ramp, value_at
from medssml.objectives.draws import uniform
from medssml.objectives.held import Held
from medssml.objectives.step import Step


class PrototypeHead(nn.Module):
    """Three linear layers with GELU -> unit vectors of `bottleneck` -> cosines with K prototypes of unit length."""

    def __init__(self, width: int, hidden: int, bottleneck: int, prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.prototypes = nn.Parameter(F.normalize(torch.randn(prototypes, bottleneck), dim=1))

    def forward(self, pooled: Tensor, *, frozen: bool = False) -> Tensor:
        """(n, K) from pooled (n, D), float32 or better; frozen: no gradient to the prototypes."""
        x = self.mlp(pooled)
        prototypes = self.prototypes.detach() if frozen else self.prototypes
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, torch.float32)
            return F.normalize(x.to(wide), dim=1) @ F.normalize(prototypes, dim=1).T


class DINO(Objective):
    """loss = mean over studies of the mean over pairs (whole look i, other look j) of  -sum over k of P_i[k] log S_j[k]

        P = softmax((teacher's logits - c) / t_t),   S = softmax(student's logits / t_s)

    The teacher, a running mean of model and head, sees two whole looks; the student sees these and `local_crops` further
    looks, of each of which only a part is left (`Encoder.crop`). c, the running mean of the teacher's logits, keeps one
    prototype from winning always, the low temperature t_t keeps all from being alike. Computed within each modality, each
    with a head and a centre of its own; a modality that has no parts, such as a table, has the two looks alone.

    [1] Caron et al., Emerging properties in self-supervised vision transformers, ICCV 2021, algorithm 1.

    Args:
        model: the model.
        modalities: of which; all by default.
        prototypes, hidden, bottleneck: of the head; 65,536, 2048 and 256 as in the paper.
        local_crops: further looks; the loader makes as many. 8 as in the published code.
        local_share: of each axis that a part keeps; 96 of 224 pixels as in the paper.
        temperature: t_s; 0.1 as in the paper. teacher_temperature: t_t; by default from 0.04 to 0.07 over the first 30 %.
        momentum: of the teacher; by default from 0.996 to 1 along a cosine. centre_momentum: of c; 0.9.
        frozen_epochs: at the start, in which the prototypes stay; 1 as in the published code.
        weight: in the sum of objectives.

    Raises:
        ValueError: a share outside (0, 1], a number of crops below 0.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        prototypes: int = 65536,
        hidden: int = 2048,
        bottleneck: int = 256,
        local_crops: int = 8,
        local_share: float = 0.43,
        temperature: float = 0.1,
        teacher_temperature: float | Ramp | None = None,
        momentum: float | Ramp | None = None,
        centre_momentum: float = 0.9,
        frozen_epochs: int = 1,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if not 0 < local_share <= 1 or local_crops < 0:
            raise ValueError(
                f"DINO: local_crops {local_crops}, local_share {local_share}; fix: 0 or more, and a share of (0, 1]"
            )
        self.views = 2 + local_crops
        self.teacher = Ramp(0.996, 1.0, shape="cosine") if momentum is None else momentum
        self.teacher_temperature = Ramp(0.04, 0.07, until=0.3) if teacher_temperature is None else teacher_temperature
        self.temperature, self.local_share = temperature, local_share
        self.centre_momentum, self.frozen_epochs = centre_momentum, frozen_epochs
        names = chosen(model, modalities, "DINO")
        self.heads = nn.ModuleDict({name: PrototypeHead(model.dim, hidden, bottleneck, prototypes) for name in names})
        self.register_buffer("centres", torch.zeros(len(names), prototypes))
        self.centres: Tensor
        self.held = Held()

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and per modality the entropy of the targets: near log(prototypes) or 0 after a collapse."""
        count = self._counts(step)
        if not bool(count.any()):
            return None
        parts = [self._distil(step, place, name) for place, name in enumerate(self.heads)]
        totals, entropies, sums = (global_sum(torch.stack(column)) for column in zip(*parts, strict=True))
        if self.training:
            self.held.put((sums, 2 * count), step.clock.step)
        out = {"loss": totals.sum() / count.sum() * step.share(lambda other: self._counts(other).sum())}
        return out | {f"entropy_{n}": e / c for n, e, c in zip(self.heads, entropies, count, strict=True) if c > 0}

    def after_step(self, clock: Clock) -> None:
        """The centres move towards the means of the step's batches."""
        held = self.held.take()
        if held:
            sums, counts = (torch.stack(column).sum(0) for column in zip(*held, strict=True))
            mean = sums / counts.clamp(min=1)[:, None]
            moved = self.centres.lerp(mean.to(self.centres.dtype), 1 - self.centre_momentum)
            self.centres.copy_(torch.where(counts[:, None] > 0, moved, self.centres))

    def _distil(self, step: Step, place: int, name: str) -> tuple[Tensor, Tensor, Tensor]:
        """This rank's sums over the studies of one modality: of the loss, of the targets' entropy, of the teacher's logits."""
        if name not in step.batch.inputs:
            zero = self.centres.new_zeros(())
            return zero, zero, torch.zeros_like(self.centres[place])
        teacher = cast(PrototypeHead, cast(DINO, step.twin(self)).heads[name])
        with torch.no_grad():
            logits = [teacher(view.encoded[name].pooled) for view in step.teacher.views[:2]]
            heat = value_at(self.teacher_temperature, step.clock)
            targets = [centred_and_sharpened(one, self.centres[place], heat) for one in logits]
            entropy = -torch.stack([torch.special.xlogy(p, p).sum(1) for p in targets]).mean(0).sum()
        frozen = step.clock.epoch < self.frozen_epochs
        answers = [self.heads[name](pooled, frozen=frozen) for pooled in self._looks(step, name)]
        loss = mean_over_pairs(targets, answers, self.temperature).sum()
        return loss, entropy, torch.stack(logits).sum((0, 1))

    def _looks(self, step: Step, name: str) -> list[Tensor]:
        """The student's pooled vectors (n, D) of the two whole looks and of the parts of the others."""
        encoder, looks = step.model.encoders[name], [view.encoded[name].pooled for view in step.views[:2]]
        for view in step.views[2 : self.views]:
            keys = view.batch.key[view.batch.rows(name)]
            at = uniform(keys, 3, f"dino/{name}", seed=step.seed)
            part = encoder.crop(view.batch.inputs[name], self.local_share, at) if isinstance(encoder, Encoder) else None
            if part is not None:
                looks.append(view.encode(inputs={name: part})[name].pooled)
        return looks

    def _counts(self, step: Step) -> Tensor:
        """(modalities,) studies of all ranks that have each."""
        present = step.everyone.present.sum(0)
        return torch.stack([present[step.model.modalities.index(name)] for name in self.heads])
