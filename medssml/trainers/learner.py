"""What pretraining and fine-tuning share: the step, its randomness, the optimiser, and the guard against NaN."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

import lightning.pytorch as pl
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from medssml.batch import Batch
from medssml.losses.gather import take_part
from medssml.model import MultimodalModel
from medssml.privacy import short_code
from medssml.randomness import mix
from medssml.trainers.optim import adamw, clip_gradients, lr_factor, parameter_groups, set_lr
from medssml.trainers.settings import Optim

log = logging.getLogger(__name__)


class NonFiniteError(RuntimeError):
    """Step after step without finite gradients: the run stops, its last good checkpoint stands."""

    exit_code = 3


def step_seed(seed: int, batch: int, rank: int = 0) -> int:
    """The seed of one step's own randomness (dropout), f(seed, batches so far, rank): the same after a resume."""
    return mix(seed, batch, rank)


class Learner(pl.LightningModule):
    """A model that learns: subclasses say what the loss of a batch is and how a validation is scored.

    The count of batches is the only clock. From it follow the step, the learning rate, the position in the data and the
    seed of dropout, so that a resumed run has nothing else to restore but tensors.

    A parameter that a batch does not use keeps its value (its gradient is None, on every rank, and AdamW leaves it
    alone): a batch without EEG does not move the EEG encoder.

    Args:
        model: what learns, a MultimodalModel.
        optim: the settings of the optimiser.
        seed: of dropout.
    """

    def __init__(self, model: MultimodalModel, optim: Optim, *, seed: int = 0) -> None:
        super().__init__()
        self.model: MultimodalModel = model
        self.optim = optim
        self.seed = seed
        self.average: AveragedModel | None = None
        self.batches = 0
        self.accumulate = 1
        self.total = 1
        self.bad_limit = 10
        self.bad_in_a_row = 0
        self.on_bad: Callable[[tuple[str, ...]], None] | None = None
        self.numbers: dict[str, Tensor] = {}
        self._suspects: list[str] = []
        self._seen: list[str] = []

    # What a subclass says.

    def terms(self, batch: Batch) -> dict[str, Tensor]:
        """The numbers of one batch: "loss", left out where nothing is defined, and whatever else history.csv shows."""
        raise NotImplementedError

    def validate(self, batches: Iterable[Batch]) -> dict[str, float]:
        """Metrics of the validation studies, by `self.validated`; gradients are off and the model is in eval mode."""
        raise NotImplementedError

    def score(self, metrics: dict[str, float]) -> float | None:
        """What decides between checkpoints, higher is better; None where the metrics cannot decide."""
        return None

    # The clock.

    @property
    def step(self) -> int:
        """Optimiser steps taken, those skipped for NaN included."""
        return self.batches // self.accumulate

    @property
    def validated(self) -> MultimodalModel:
        """The model that counts: the running mean of the weights where there is one."""
        return self.model if self.average is None else cast(MultimodalModel, self.average.module)

    def keep_average(self, decay: float) -> None:
        """Starts a running mean of the weights, w <- decay w + (1 - decay) new."""
        self.average = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.average.requires_grad_(False)

    # Lightning's hooks.

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of one batch, a scalar."""
        torch.manual_seed(step_seed(self.seed, self.batches, self.global_rank))
        self.numbers = self.terms(batch)

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
        """AdamW over what is trainable. The learning rate is set at every step, from the step."""
        return adamw(parameter_groups(self, self.optim, encoders=getattr(self.model, "encoders", None)), self.optim)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step at the learning rate of this step."""
        set_lr(optimizer, lr_factor(self.step, self.total, self.optim))
        optimizer.step(closure=optimizer_closure)
        if self.average is not None and self.bad_in_a_row == 0:
            self.average.update_parameters(self.model)

    def configure_gradient_clipping(self, optimizer: Any, *_: Any, **__: Any) -> None:
        """Clips; where the gradients are not finite, drops them, which makes the step leave every weight as it is."""
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

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        """The batch moves itself."""
        return batch.to(device)

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

    def learning_state(self) -> dict[str, Any]:
        """What a checkpoint holds of this learner, beside the optimiser."""
        return {"batches": self.batches, "bad_in_a_row": self.bad_in_a_row, "weights": self.state_dict()}

    def load_learning_state(self, state: dict[str, Any]) -> None:
        """Goes on from `learning_state`."""
        self.load_state_dict(state["weights"])
        self.batches = int(state["batches"])
        self.bad_in_a_row = int(state["bad_in_a_row"])


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
