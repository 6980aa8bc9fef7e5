"""SMIL: labels are learned so that a step on studies of which a part is absent makes the whole ones answered better."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from medssml.batch import Encoded, Fused
from medssml.fusion.imputation import Imputation
from medssml.losses import all_gather_rows, global_sum
from medssml.model import MultimodalModel
from medssml.objectives.base import refuse_single
from medssml.objectives.clock import Ramp
from medssml.objectives.divergence import tempered_divergence
from medssml.objectives.dropout_consistency import reduced_presence
from medssml.objectives.step import Step
from medssml.objectives.study_loss import wide
from medssml.objectives.supervised import Supervised

#: Of the distillation, as it is commonly used.
TEMPERATURE = 4.0


class SMIL(Supervised):
    """theta' = theta - a * gradient in theta of  labels(parts; theta, psi)                                      the inner step
    loss = labels(wholes; theta', psi) + distil * T^2 KL(wholes | parts) + align * |x' - x|^2 / D               the meta loss

    theta are the fusion inside and the heads; psi, the networks of `PriorImputation` that fill in and believe, is learned through
    the step as well. The part of a study is drawn from its own key, neither empty nor the whole; x' stands in for what is hidden.
    A study of one modality is its own part. The second term is of the answers, those of the whole fixed; the third is over
    what was hidden and is known, teaches what fills in, and changes no vector.

    What differs from [1]: there whole and incomplete studies are different ones, of two modalities, and theta is the whole
    network. Here each study is both, of any modalities. An inner step through the encoders would take each batch through
    them twice more, and their gradients' gradients: encoders and projections are learned by the meta loss alone. What the
    two further terms are in the published script, weighed by 0.01 each, is our reading of it. That script keeps the weights
    that are best on test studies; here validation studies choose, as in every training.

    In the `objectives` of a fine-tuning config it takes the place of the labels, and of their modality dropout. In a step of
    several batches each has an inner step of its own.

    [1] Ma et al., SMIL: multimodal learning with severely missing modality, AAAI 2021.

    Args:
        model: whose fusion is a `PriorImputation`; has a head for every task.
        tasks: which of its tasks to learn; None for all.
        inner_lr: a; divided by 10 after each eighth of the run, as published.
        p: with which probability each present modality is left out of the part.
        distil, align: of the further terms.
        weight: in the sum of objectives.

    Raises:
        ValueError: another fusion, a task that the model does not have, or a number out of range.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        tasks: Sequence[str] | None = None,
        *,
        inner_lr: float = 1e-3,
        p: float = 0.5,
        distil: float = 0.01,
        align: float = 0.01,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, tasks, weight=weight)
        refuse_single(model, "SMIL")
        if "expected" not in model.fusion.keeps:
            kind = type(model.fusion).__name__
            raise ValueError(f"{kind} does not say what it expects; fix: fusion: {{class_path: PriorImputation}}")
        if not 0 < p < 1 or not all(number >= 0 for number in (inner_lr, distil, align)):
            raise ValueError(
                f"SMIL: p {p}, inner_lr {inner_lr}, distil {distil}, align {align}; fix: p between 0 and 1, the others 0 or more"
            )
        self.inner_lr, self.p, self.distil, self.align = inner_lr, p, distil, align

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The meta loss, "loss/TASK" of the wholes, and the labels' loss of the parts, "distilled" and "aligned"."""
        studies = _Studies.of(step, list(self.tasks))
        if not any(bool(labels.isfinite().any()) for labels in studies.targets.values()):
            return None
        part = reduced_presence(studies.present, studies.key, self.p, seed=step.seed)

        # The inner step; kernels of attention that are faster have no second derivative.
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            before = self._answered(step.model, studies, part)
            weights = self._moved(step, before.loss)
            # What the moved weights say of wholes and parts.
            whole = _asked(step.model, weights, lambda: self._answered(step.model, studies, None))
            parts = _asked(step.model, weights, lambda: self._answered(step.model, studies, part))

        loss = self._mean(step, whole.losses)
        logged = {f"loss/{name}": value.detach() for name, value in whole.losses.items()}
        logged["parts"] = before.loss.detach()
        several, hidden = studies.present.sum(1) > 1, studies.present & ~part
        if bool(several.any()):
            distilled = self._distilled(whole.answers, parts.answers)[several].mean()
            loss = loss + self.distil * distilled * step.share(self._several)
            aligned = self._aligned(step.model, studies, part)[hidden].mean()
            loss = loss + self.align * aligned * step.share(self._hidden)
            logged |= {"distilled": distilled.detach(), "aligned": aligned.detach()}
        return {"loss": loss, **logged}

    def _answered(self, model: MultimodalModel, studies: _Studies, within: Tensor | None) -> _Answered:
        """What the studies are answered from what is `within` (B, M), or from all that is present."""
        fused: Fused = model.fuse(studies.encoded, studies.present, within)
        losses, answers = {}, {}
        for (name, task), loss_of in zip(self.tasks.items(), self.losses, strict=True):
            answers[name] = wide(model.heads[name](fused))
            labels = studies.targets[name]
            known = labels.isfinite()
            if bool(known.any()):
                losses[name] = loss_of(task, answers[name], labels.nan_to_num(0.0))[known].mean()
        return _Answered(losses, answers)

    def _moved(self, step: Step, loss: Tensor) -> dict[str, Tensor]:
        """Name -> weight of theta after the inner step."""
        inside = "fusion.fusion." if isinstance(step.model.fusion, Imputation) else "fusion."
        theta = (inside, *(f"heads.{name}." for name in self.tasks))
        weights = {n: p for n, p in step.model.named_parameters() if n.startswith(theta) and p.requires_grad}
        slopes = torch.autograd.grad(loss, list(weights.values()), create_graph=True, allow_unused=True)
        rate = self.inner_lr * 0.1 ** int(8 * step.clock.done)
        pairs = zip(weights.items(), slopes, strict=True)
        return {name: weight if slope is None else weight - rate * slope for (name, weight), slope in pairs}

    def _distilled(self, whole: Mapping[str, Tensor], part: Mapping[str, Tensor]) -> Tensor:
        """(B,) how far the answers of the part lie from those of the whole, which are fixed; the mean over tasks."""
        apart = [
            tempered_divergence(task, part[name], whole[name].detach(), TEMPERATURE)
            for name, task in self.tasks.items()
        ]
        return torch.stack(apart).mean(0)

    def _aligned(self, model: MultimodalModel, studies: _Studies, part: Tensor) -> Tensor:
        """(B, M) mean square of what the part lets expect less what is there. The vectors are fixed: those of what is there have
        no reason to become easy to guess."""
        fixed = {name: encoded.each(Tensor.detach) for name, encoded in studies.encoded.items()}
        expected = model.fuse(fixed, studies.present, part).extra["expected"]
        return (wide(expected) - wide(model.fusion.table(fixed, studies.present))).square().mean(2)

    def _several(self, step: Step) -> Tensor:
        """() studies of all ranks with two modalities or more."""
        return global_sum((step.present.sum(1) > 1).sum())

    def _hidden(self, step: Step) -> Tensor:
        """() modalities that are hidden from the parts of the studies of all ranks."""
        part = reduced_presence(step.present, step.batch.key, self.p, seed=step.seed)
        return global_sum((step.present & ~part).sum())


class _Answered(NamedTuple):
    """losses: task -> mean over its labelled studies, one without any left out. answers: task -> logits of all studies."""

    losses: dict[str, Tensor]
    answers: dict[str, Tensor]

    @property
    def loss(self) -> Tensor:
        """() the mean over tasks."""
        return torch.stack(list(self.losses.values())).mean()


class _Studies(NamedTuple):
    """Of all ranks: so that each computes the whole loss, and the inner step is one. key: (B,). targets: task -> (B,)."""

    encoded: dict[str, Encoded]
    present: Tensor
    key: Tensor
    targets: dict[str, Tensor]

    @classmethod
    def of(cls, step: Step, tasks: Sequence[str]) -> _Studies:
        encoded = {name: step.of_all(name) for name in step.model.modalities}
        given, none = step.batch.targets, torch.full((len(step.batch),), torch.nan, device=step.present.device)
        return cls(
            {name: part for name, part in encoded.items() if len(part.pooled)},
            step.everyone.present,
            all_gather_rows(step.batch.key[:, None])[:, 0],
            {name: all_gather_rows(given.get(name, none)[:, None])[:, 0] for name in tasks},
        )


class _Within(nn.Module):
    """A model as a part of a module that asks it something: what `functional_call` needs."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, question: Callable[[], Any]) -> Any:
        return question()


def _asked(model: MultimodalModel, weights: Mapping[str, Tensor], question: Callable[[], Any]) -> Any:
    """What `question` finds while `model` has other weights."""
    return functional_call(_Within(model), {f"model.{name}": value for name, value in weights.items()}, (question,))
