"""ALBEF: modalities are aligned by contrast first, and what the contrast finds hard is what matching is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from medssml.losses import all_gather_rows
from medssml.losses.info_nce import InfoNCE, cosine_logits
from medssml.model import MultimodalModel
from medssml.objectives.clock import Clock, Ramp, ends, value_at
from medssml.objectives.contrast import LogitScale
from medssml.objectives.draws import uniform
from medssml.objectives.matching import Asked, Matching
from medssml.objectives.pairs import sides_of
from medssml.objectives.queue import Queue
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class ALBEF(Matching):
    """loss = contrast with momentum targets + matching with hard negatives

        contrast = mean over studies and both directions of  - sum over j of y_ij log softmax over j of (z_i . z'_j / t)
        y_i = alpha softmax over j of (z'_i . z'_j / t) + (1 - alpha) [j = i],   j over the batch and a queue of earlier studies
        matching = mean over whole and mixed studies of BCE(head(fused), whole?)

    z is the student's projection, z' that of a teacher that follows it, without gradient. Each study is mixed twice: with the
    anchor (such as the report) of another, and with what else another has; the other is drawn in proportion to
    softmax(z . z / t) over the batch. Neither a candidate nor a negative is a study of the same subject or with an identical
    input in one of the two modalities, in the batch or in the queue. The queue, one of each modality, holds the keys z' of
    earlier steps; it is part of a run's state. The masked language modelling of the paper is `FusedMaskedLanguage` beside it.

    [1] Li et al., Align before fuse: vision and language representation learning with momentum distillation, NeurIPS 2021.

    Args:
        model: the model, whose fusion lets modalities see each other.
        anchor: the modality that is contrasted and matched with the others.
        modalities: the others; all by default.
        dim: of the space of the contrast; 256 in the paper.
        temperature: t at the start, 0.07 as in the paper; trained, within [0.01, 1].
        alpha: share of the momentum targets; 0.4 as in the paper, where it rises from 0 over the first epoch.
        queue: keys that are kept of each modality; 65,536 as in the paper, and not much more than there are studies; 0 for none.
        momentum: of the teacher; 0.995 as in the paper.
        batch_norm: of the vectors before they are projected; see `CrossModalContrast`.
        weight: in the sum of objectives.

    Raises:
        ValueError: a share or a queue that is out of bounds.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        anchor: str = "report",
        modalities: Sequence[str] | None = None,
        dim: int = 128,
        temperature: float = 0.07,
        alpha: float | Ramp = 0.4,
        queue: int = 65536,
        momentum: float | Ramp = 0.995,
        batch_norm: bool | Sequence[str] = True,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, anchor=anchor, modalities=modalities, weight=weight)
        if not all(0 <= end <= 1 for end in ends(alpha)):
            raise ValueError(f"alpha is {alpha}; expected a share from 0 to 1")
        if queue < 0:
            raise ValueError(f"queue is {queue}; expected a number of studies, or 0 for none")
        self.alpha, self.teacher = alpha, momentum
        self.space = SharedSpace(model.dim, dim, (self.anchor, *self.modalities), batch_norm)
        self.scale = LogitScale(temperature)
        place = {name: model.modalities.index(name) for name in self.space.modalities}
        met = {name: [place[name], place[self.anchor]] for name in self.modalities} | {
            self.anchor: list(place.values())
        }
        self.queues = nn.ModuleDict({name: Queue(queue, dim, met[name]) for name in place} if queue else {})

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, its two parts, the temperature, and the share of right answers of matching."""
        names, momentum = self.space.modalities, step.twin(self)
        student = {name: self.space(name, step.pooled_of_all(name)) for name in names}
        with torch.no_grad():
            teacher = {name: momentum.space(name, step.teacher.pooled_of_all(name)) for name in names}  # type: ignore[operator]
        scale = self.scale()
        self._hold(step, teacher)

        # Which modality belongs to which report.
        found = [self._contrast(step, name, student, teacher, scale) for name in self.modalities]
        count = torch.stack([part.terms for part in found]).sum()
        parts = {}
        if count > 0:
            mean = torch.stack([part.total for part in found]).sum() / count
            parts["contrast"] = mean * step.share(self._contrasts)

        # And whether those belong together that look as if they did.
        asked = self._asked(step)
        mixed = self._mixed(step, asked, self._similarity(step, student, scale))
        matching = self._match(step, asked.own, mixed)
        if matching is not None:
            parts["matching"] = matching["loss"]
        if not parts:
            return None
        out = {"loss": torch.stack(list(parts.values())).sum(), "temperature": 1 / scale.detach()}
        out |= {f"loss_{name}": part.detach() for name, part in parts.items()}
        return out if matching is None else out | {"accuracy": matching["accuracy"]}

    def after_step(self, clock: Clock) -> None:
        """The keys of the step enter the queues."""
        for queue in self.queues.values():
            cast(Queue, queue).move()

    def kept(self) -> dict[str, nn.Module]:
        """The space of the contrast, in which a modality finds another."""
        return {"space": self.space}

    def _contrast(
        self, step: Step, name: str, student: dict[str, Tensor], teacher: dict[str, Tensor], scale: Tensor
    ) -> InfoNCE:
        """Both directions between `name` and the anchor."""
        alpha, terms = value_at(self.alpha, step.clock), []
        for a, b, match, negative in self._candidates(step, name):
            keys = torch.cat([teacher[b], cast(Queue, self.queues[b]).vectors]) if b in self.queues else teacher[b]
            logits = cosine_logits(student[a], keys, scale)
            with torch.no_grad():
                guess = cosine_logits(teacher[a], keys, scale)
            terms.append(soft_terms(logits, guess, match, negative, alpha))
        return InfoNCE(*((x + y) / 2 for x, y in zip(*terms, strict=True)))

    def _candidates(self, step: Step, name: str) -> list[tuple[str, str, Tensor, Tensor]]:
        """Of both directions: who looks for whom, and (Na, Nb + K) bool each, the match of each row and its negatives, those of
        the batch and then those of the queue."""
        sides = sides_of(step, (name, self.anchor))
        columns = [step.model.modalities.index(one) for one in (name, self.anchor)]
        out = []
        for a, b, rows, match, negative in (
            (name, self.anchor, sides.studies[0], sides.match, sides.negative),
            (self.anchor, name, sides.studies[1], sides.match.T, sides.negative.T),
        ):
            if b in self.queues:
                alike = cast(Queue, self.queues[b]).alike(step.everyone, rows, columns)
                match, negative = (
                    torch.cat(pair, dim=1) for pair in ((match, torch.zeros_like(alike)), (negative, ~alike))
                )
            out.append((a, b, match, negative))
        return out

    def _hold(self, step: Step, teacher: dict[str, Tensor]) -> None:
        """Keys of training wait for the end of the step."""
        if self.training:
            for name, queue in self.queues.items():
                rows = step.everyone.rows(step.model.modalities.index(name))
                cast(Queue, queue).hold(teacher[name], step.everyone, rows, step.clock.step)

    def _similarity(self, step: Step, student: dict[str, Tensor], scale: Tensor) -> Tensor:
        """(B, B) mean logit of the modalities of study i and the anchor of study j, without gradient; 0 where there is none."""
        size = len(step.everyone.subject)
        total, count = student[self.anchor].new_zeros(2, size, size)
        for name in self.modalities:
            a, b = (step.everyone.rows(step.model.modalities.index(n)) for n in (name, self.anchor))
            total[a[:, None], b[None, :]] += cosine_logits(student[name], student[self.anchor], scale).detach()
            count[a[:, None], b[None, :]] += 1
        return total / count.clamp(min=1)

    def _mixed(self, step: Step, asked: Asked, similarity: Tensor) -> Tensor:
        """(L, M): each study with the anchor of another, and each anchor with what else another study has."""
        anchor = step.model.modalities.index(self.anchor)
        key = all_gather_rows(step.batch.key)
        given = asked.own.clone()
        given[:, anchor] = asked.nearest(-self._noisy(step, similarity, key, asked, "anchor"))

        others = self._others(step)
        from_others = torch.where(self._has(step), torch.arange(len(key), device=key.device)[:, None], -1)
        taken = from_others[others.nearest(-self._noisy(step, similarity.T, key, others, "others"))]
        taken[:, anchor] = others.studies
        return torch.cat([given, taken])

    def _noisy(self, step: Step, similarity: Tensor, key: Tensor, asked: Asked, what: str) -> Tensor:
        """(K, n) logits and Gumbel noise, whose greatest is a draw from their softmax: by keys, not by places in the batch."""
        mine, theirs = (uniform(key, 1, f"albef/{what}/{side}", seed=step.seed).double() for side in ("of", "to"))
        noise = ((mine[asked.studies] + theirs[asked.rows].T) % 1.0).clamp(1e-12, 1 - 1e-12)
        return similarity[asked.studies][:, asked.rows] - (-noise.log()).log().to(similarity.dtype)

    def _others(self, step: Step) -> Asked:
        """The same studies, and which may lend them all but the anchor."""
        asked, has = self._asked(step), self._has(step)
        columns = [step.model.modalities.index(name) for name in self.modalities]
        rows = has[:, columns].any(1).nonzero().squeeze(1)
        barred = step.everyone.alike(asked.studies, rows, columns)
        some = ~barred.all(1)
        return Asked(asked.own[some], asked.studies[some], rows, barred[some])

    def _count(self, step: Step) -> Tensor:
        count = 2.0 * len(self._asked(step).studies) + len(self._others(step).studies)
        return torch.tensor(count, device=step.present.device)

    def _contrasts(self, step: Step) -> Tensor:
        both = [part for name in self.modalities for part in self._candidates(step, name)]
        return torch.stack([_with_term(match, negative).sum() for _, _, match, negative in both]).sum() / 2


def soft_terms(logits: Tensor, guess: Tensor, match: Tensor, negative: Tensor, alpha: float) -> InfoNCE:
    """For every row with a match and a negative: cross-entropy with  alpha softmax(guess) + (1 - alpha) match.

    Args:
        logits, guess: (Na, Nb). match: (Na, Nb) bool, at most one True in a row. negative: (Na, Nb) bool.
    """
    rows = _with_term(match, negative).nonzero().squeeze(1)
    own, candidate = match[rows], (match | negative)[rows]
    log = logits[rows].masked_fill(~candidate, -torch.inf).log_softmax(1)
    target = alpha * guess[rows].masked_fill(~candidate, -torch.inf).softmax(1) + (1 - alpha) * own.to(guess.dtype)
    # 0 * -inf is NaN: what is no candidate is left out of the sum.
    total = -torch.where(candidate, target * log, 0.0).sum()
    correct = own.gather(1, log.detach().argmax(1, keepdim=True)) if len(rows) else own
    return InfoNCE(total, torch.tensor(len(rows), device=logits.device), correct.sum())


def _with_term(match: Tensor, negative: Tensor) -> Tensor:
    """(Na,) bool: the rows with a match and a negative."""
    return match.any(1) & negative.any(1)
