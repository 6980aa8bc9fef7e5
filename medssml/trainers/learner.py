"""What learns: a model and its objectives, the step, its randomness, the optimiser, the guard against NaN."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.encoders.chunks import batch_statistics
from medssml.encoders.descriptor import Descriptors
from medssml.losses.gather import take_part
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective
from medssml.objectives.clock import Clock, Ramp, value_at
from medssml.objectives.step import Step, Teacher
from medssml.privacy import short_code
from medssml.randomness import mix
from medssml.trainers.judges import EmbeddingJudge, Judge
from medssml.trainers.moving_average import MovingAverage
from medssml.trainers.optim import clip_gradients, lr_factor, optimiser, parameter_groups, set_lr
from medssml.trainers.settings import Optim
from medssml.trainers.stream import Portion

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Step after step without finite gradients: the run stops, its last good checkpoint stands."""

    exit_code = 3


def step_seed(seed: int, batch: int, rank: int = 0) -> int:
    """The seed of one step's own randomness (dropout), f(seed, batches so far, rank): the same after a resume."""
    return mix(seed, batch, rank)


class Learner(pl.LightningModule):
    """loss = sum over objectives of weight * objective(step); a term that a batch does not define is left out.

    The count of batches is the only clock. From it follow the step, the learning rate, the position in the data and the
    seed of dropout, so that a resumed run has nothing else to restore but tensors.

    A parameter that a batch does not use keeps its value (its gradient is None, on every rank, and the optimiser leaves
    it alone): a batch without EEG does not move the EEG encoder.

    Args:
        model: what learns.
        objectives: what is asked of it, labels among them; a hybrid method is a list of two.
        optim: the settings of the optimiser.
        judge: scores the validations; by default by what the embedding holds.
        frozen: parts of the model that stay in evaluation mode: no dropout, no new batch statistics.
        given: another model that objectives may ask, as `Step.teacher`.
        seed: of dropout and of the objectives' draws.

    Raises:
        ValueError: no objective, or teachers that contradict each other.
    """

    def __init__(
        self,
        model: MultimodalModel,
        objectives: Sequence[Objective],
        optim: Optim,
        *,
        judge: Judge | None = None,
        frozen: Sequence[nn.Module] = (),
        given: MultimodalModel | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not objectives:
            raise ValueError("no objective; fix: list at least one under `objectives`")
        self.model: MultimodalModel = model
        self.objectives = nn.ModuleList(objectives)
        self.names = objective_names(objectives)
        self.optim = optim
        self.judge: Judge = EmbeddingJudge() if judge is None else judge
        self.frozen = list(frozen)
        self.seed = seed
        self.momentum = _momentum(objectives, given)
        self.teacher: MovingAverage | None = (
            None if self.momentum is None else MovingAverage(model, objectives, begin_after_first=False)
        )
        # Not registered: its weights are a run of their own, and no part of this one's checkpoints.
        self.__dict__["given"] = None if given is None else given.eval().requires_grad_(False)
        self.average: MovingAverage | None = None
        self.decay = 0.0
        self.batches = 0
        self.accumulate = 1
        self.chunk: int | None = None
        self.per_epoch = 1
        self.total = 1
        self.bad_limit = 10
        self.bad_in_a_row = 0
        self.on_bad: Callable[[tuple[str, ...]], None] | None = None
        self.numbers: dict[str, Tensor] = {}
        self._suspects: list[str] = []
        self._seen: list[str] = []
        self._group: tuple[Batch, ...] = ()
        self.train()

    def train(self, mode: bool = True) -> Learner:
        """Train mode, in which frozen parts stay as in evaluation."""
        super().train(mode)
        for part in self.frozen:
            part.eval()
        return self

    @property
    def views(self) -> int:
        """How many looks at each study the objectives ask for."""
        return max(cast(Objective, objective).views for objective in self.objectives)

    # The loss.

    def terms(self, batch: Batch, group: Sequence[Batch] = ()) -> dict[str, Tensor]:
        """The numbers of one batch: "loss", left out where nothing is defined, and "OBJECTIVE/..." for what each reports.

        Args:
            group: all batches of this step of the optimiser.
        """
        step = Step(
            self.model, batch, seed=self.seed, clock=self.clock, teacher=self._teacher(self.objectives), group=group,
            chunk=self.chunk,
        )  # fmt: skip
        return self.sum_of(step, self.objectives)

    def sum_of(self, step: Step, objectives: Iterable[nn.Module]) -> dict[str, Tensor]:
        """See `terms`."""
        numbers: dict[str, Tensor] = {}
        losses = []
        for name, objective in zip(self.names, objectives, strict=True):
            # A validation looks at each study once: what compares looks has no term there.
            found = objective(step) if len(step.views) >= cast(Objective, objective).views else None
            if not found:
                continue
            losses.append(value_at(cast(Objective, objective).weight, step.clock) * found["loss"])
            numbers |= {f"{name}/{key}": value.detach() for key, value in found.items()}
        return {"loss": torch.stack(losses).sum(), **numbers} if losses else numbers

    def validation_step_of(self, batch: Batch) -> Step:
        """What the objectives are asked in a validation: of studies that have no place among those of training."""
        teacher = self._teacher(self.validated_objectives)
        return Step(self.validated, replace(batch, index=None), seed=self.seed, clock=self.clock, teacher=teacher)

    def _teacher(self, objectives: Iterable[nn.Module]) -> Teacher | None:
        if self.teacher is not None:
            return Teacher(self.teacher.model, self.teacher.copies(list(objectives)))
        given = self.__dict__["given"]
        return None if given is None else Teacher(given.to(self.device))

    # The clock.

    @property
    def step(self) -> int:
        """Optimiser steps taken, those skipped for NaN included."""
        return self.batches // self.accumulate

    @property
    def clock(self) -> Clock:
        """Where the run stands."""
        return Clock(self.step, self.total, self.batches // self.per_epoch)

    @property
    def validated(self) -> MultimodalModel:
        """The model that counts: the running mean of the weights where there is one."""
        return self.model if self.average is None else self.average.model

    @property
    def validated_objectives(self) -> list[Objective]:
        """The objectives that go with it."""
        return cast(list[Objective], list(self.objectives if self.average is None else self.average.objectives))

    def keep_average(self, decay: float) -> None:
        """Starts a running mean of the weights, w <- decay w + (1 - decay) new."""
        self.average = MovingAverage(self.model, list(self.objectives), begin_after_first=True)
        self.decay = decay

    def encode_in_chunks(self, size: int | None) -> None:
        """Lets `size` studies pass an encoder at a time, see `in_chunks`; None for all.

        Raises:
            ValueError: an encoder normalises by the statistics of what passes together.
        """
        peers = (peer for objective in self.objectives for peer in cast(Objective, objective).peers)
        for model in (self.model, *peers):
            for name, encoder in model.encoders.items():
                found = None if size is None else batch_statistics(encoder)
                if found is not None:
                    raise ValueError(
                        f"trainer.encoder_chunk is {size}, and the encoder of {name} has a {found}, whose statistics would be "
                        f"those of {size} studies; fix: leave encoder_chunk out, or give the encoder group norms"
                    )
        self.chunk = size

    # Lightning's hooks.

    def training_step(self, portion: Portion, batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar; Lightning averages those of one step of the optimiser."""
        batch = portion.batch
        torch.manual_seed(step_seed(self.seed, self.batches, self.global_rank))
        self.numbers = self.terms(batch, portion.group)

        loss = self.numbers.get("loss")
        if loss is None:
            # No term is defined here. Other ranks may have one, so the backward pass still happens.
            return take_part(p for p in self.parameters() if p.requires_grad)

        self._seen += batch.study_id
        if not torch.isfinite(loss.detach()):
            self._suspects += batch.study_id
            loss = loss * float("nan")  # an infinite loss may have finite gradients; every rank has to notice
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """The optimiser over what is trainable. The learning rate is set at every step, from the step."""
        return optimiser(parameter_groups(self, self.optim), self.optim)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step at the learning rate of this step, and what follows the weights."""
        set_lr(optimizer, lr_factor(self.step, self.total, self.optim))
        optimizer.step(closure=optimizer_closure)
        if self.bad_in_a_row > 0:
            return
        if self.average is not None:
            self.average.update(self.model, list(self.objectives), self.decay)
        if self.teacher is not None and self.momentum is not None:
            self.teacher.update(self.model, list(self.objectives), value_at(self.momentum, self.clock))
        self._after_step()

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips; where the gradients are not finite, drops them, which makes the step leave every weight as it is."""
        self._before_step()
        moved = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        norm = clip_gradients(moved, self.optim.clip_norm) if moved else torch.zeros(())
        if torch.isfinite(norm):
            self.numbers["grad_norm"] = norm
            self.bad_in_a_row = 0
        else:
            for parameter in moved:
                parameter.grad = None
            self._report_bad()
        self._seen, self._suspects = [], []

    def transfer_batch_to_device(self, portion: Portion, device: torch.device, dataloader_idx: int) -> Portion:
        """The batches of a step move together, once."""
        if portion.place == 0 or not self._group:
            self._group = tuple(batch.to(device) for batch in portion.group)
        return Portion(portion.place, self._group)

    # Hooks of the objectives, each with randomness that follows from the clock alone: a resumed run draws the same.

    def begin_epoch(self, studies: Iterable[Batch]) -> None:
        """Lets model and objectives look at all training studies, before the first batch of an epoch."""
        with evaluating(self):
            self.model.fit_descriptors(batch.to(self.device) for batch in studies)
            for part in self.modules():  # a teacher, a peer: copies that were made before
                if isinstance(part, Descriptors):
                    part.follow(self.model.descriptors)
            self.model.fit_fusion(batch.to(self.device) for batch in studies)
        for place, objective in enumerate(self.objectives):
            if getattr(type(objective), "begin_epoch", None) is not Objective.begin_epoch:
                torch.manual_seed(step_seed(self.seed, self.batches, -1 - place))
                batches = (batch.to(self.device) for batch in studies)
                with evaluating(self):
                    cast(Objective, objective).begin_epoch(self.clock, self.model, batches)

    def _before_step(self) -> None:
        for place, objective in enumerate(self.objectives):
            if getattr(type(objective), "before_step", None) is not Objective.before_step:
                torch.manual_seed(step_seed(self.seed, self.batches, -2001 - place))
                with torch.no_grad():
                    cast(Objective, objective).before_step(self.clock, self.model)

    def _after_step(self) -> None:
        for place, objective in enumerate(self.objectives):
            if getattr(type(objective), "after_step", None) is not Objective.after_step:
                torch.manual_seed(step_seed(self.seed, self.batches, -1001 - place))
                with torch.no_grad():
                    cast(Objective, objective).after_step(self.clock)

    # Details.

    def _report_bad(self) -> None:
        self.bad_in_a_row += 1
        self.numbers = {}
        studies = tuple(dict.fromkeys(self._suspects or self._seen))
        codes = ", ".join(short_code(study) for study in studies)
        log.warning("step %d skipped: loss or gradient is not finite; studies %s", self.step, codes or "of other ranks")
        if self.on_bad is not None:
            self.on_bad(studies)
        if self.bad_in_a_row >= self.bad_limit:
            raise NonFiniteError(
                f"no finite gradient in {self.bad_in_a_row} steps in a row, up to step {self.step}: the last checkpoint "
                f"is good; fix: look at the studies named in problems.csv, or lower optim.lr"
            )

    def kept(self) -> dict[str, nn.Module]:
        """Name -> part of an objective that is saved with the model: "space" of the first that has one, and so on."""
        found: dict[str, nn.Module] = {}
        for name, objective in zip(self.names, self.objectives, strict=True):
            for part, module in cast(Objective, objective).kept().items():
                found[part if part not in found else f"{name}/{part}"] = module
        return found

    def weights_to_keep(self) -> dict[str, dict[str, Tensor]]:
        """The weights of the model that counts, and of each objective that goes with it, on the CPU."""
        parts: dict[str, nn.Module] = {"model": self.validated}
        parts |= dict(zip(self.names, self.validated_objectives, strict=True))
        return {
            name: {key: value.detach().cpu().clone() for key, value in part.state_dict().items()}
            for name, part in parts.items()
        }

    def load_weights_to_keep(self, weights: dict[str, dict[str, Tensor]]) -> None:
        """Puts `weights_to_keep` where they are trained."""
        self.model.load_state_dict(weights["model"])
        for name, objective in zip(self.names, self.objectives, strict=True):
            objective.load_state_dict(weights[name])

    def learning_state(self) -> dict[str, Any]:
        """What a checkpoint holds of this learner, beside the optimiser."""
        return {"batches": self.batches, "bad_in_a_row": self.bad_in_a_row, "weights": self.state_dict()}

    def load_learning_state(self, state: dict[str, Any]) -> None:
        """Goes on from `learning_state`."""
        self.load_state_dict(state["weights"])
        self.batches = int(state["batches"])
        self.bad_in_a_row = int(state["bad_in_a_row"])


def objective_names(objectives: Iterable[nn.Module]) -> list[str]:
    """What history.csv calls each objective: its class name in snake case (SimCLR is sim_clr), numbered from the second
    of a kind on."""
    names: list[str] = []
    for objective in objectives:
        name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(objective).__name__).lower()
        same = sum(1 for known in names if known == name or known.startswith(f"{name}_"))
        names.append(name if same == 0 else f"{name}_{same + 1}")
    return names


def _momentum(objectives: Sequence[Objective], given: MultimodalModel | None) -> float | Ramp | None:
    """The decay of the one teacher that follows the student; None where no objective asks for one."""
    asked = {type(o).__name__: o.teacher for o in objectives if o.teacher is not None}
    decays = [decay for decay in asked.values() if decay != "given"]
    if "given" in asked.values() and given is None:
        name = next(name for name, decay in asked.items() if decay == "given")
        raise ValueError(f"{name} asks another model; fix: teacher: {{checkpoint: RUN}} in the config")
    if decays and given is not None:
        raise ValueError(f"{', '.join(asked)}: one teacher follows the student and one is given; fix: one of the two")
    if any(decay != decays[0] for decay in decays):
        raise ValueError(f"{', '.join(asked)} want teachers of different decay ({decays}); fix: give them the same")
    return decays[0] if decays else None


@contextlib.contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode and no gradients inside; afterwards every submodule is as it was."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode
