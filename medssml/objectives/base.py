"""What an objective is: something to learn, asked of a `Step`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from medssml.batch import Batch
from medssml.config import Configured, LeftOut
from medssml.losses import InfoNCE
from medssml.model import MultimodalModel
from medssml.objectives.clock import Clock, Ramp, ends
from medssml.objectives.step import Step


class Objective(Configured, nn.Module):
    """A loss, its own heads, and what it asks of the model, of the data and of the run.

    It reads the model's widths when it is built and holds no reference to it: the step brings the model, so its
    parameters are trained and saved once. What it holds itself (heads, queues, prototypes) is in its state, so that a
    resumed run has it.

    Args:
        model: the model that it will be asked with.
        weight: its share in the sum of objectives, or a `Ramp`; applied by the learner, not here.

    Attributes:
        views: how many looks at each study, augmented one by one, it asks for; see `Step.views`.
        teacher: what `Step.teacher` is: a number or a `Ramp`, the decay of a running mean of model and objective that
            follows the student; "given", another model that the run was handed; None for none.
        across: whether it is about two modalities of a study, and cannot do without.
        anchored: whether it has an argument `anchor`, "report" by default, and needs that modality and another.
    """

    _handed_in: tuple[str, ...] = ("model",)

    views: int = 1
    teacher: float | Ramp | Literal["given"] | None = None
    across: bool = False
    anchored: bool = False

    def __init__(self, model: MultimodalModel, *, weight: float | Ramp = 1.0) -> None:
        super().__init__()
        if not all(value >= 0 for value in ends(weight)) or max(ends(weight)) == 0:
            raise ValueError(f"weight of {type(self).__name__} is {weight}; expected a positive number")
        self.weight = weight

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The loss of the whole batch over all ranks, scalar, under "loss", and detached scalars to be logged.

        None where the batch of no rank holds anything to learn from. All ranks get the same answer. Where a step of the
        optimiser has several batches, the loss is the batch's share of the step's: see `Step.share`.
        """
        raise NotImplementedError

    def begin_epoch(self, clock: Clock, model: MultimodalModel, studies: Iterable[Batch]) -> None:
        """Before the first batch of each epoch, without gradients: for what is found in all training studies at once.

        Args:
            model: in evaluation mode.
            studies: batches of all training studies, in their order, without augmentation, the same on every rank.
        """

    def before_step(self, clock: Clock, model: MultimodalModel) -> None:
        """Before each step of the optimiser, once all gradients are there and not clipped yet: for what changes gradients."""

    def after_step(self, clock: Clock) -> None:
        """After each step of the optimiser that was not skipped: for queues and other state that follows the steps."""

    @property
    def peers(self) -> Sequence[MultimodalModel]:
        """Further models that learn with this objective, and of which the same parts are frozen."""
        return ()

    def kept(self) -> dict[str, nn.Module]:
        """Name -> part that is saved with the model, of a `Configured` class: what retrieval or generation will use."""
        return {}

    @classmethod
    def restricted_to(cls, arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
        """See `Configured.restricted_to`; here for the arguments that most objectives have.

        `modalities` and `pairs` name what it is about, and cannot become empty; `batch_norm` and `mask_ratio` say how
        some are treated.
        """
        if cls.across and len(set(arguments.get("modalities") or left) & set(left)) < 2:
            raise LeftOut("needs two modalities")
        anchor = arguments.get("anchor", "report")
        if cls.anchored and (anchor not in left or len(left) < 2):
            raise LeftOut(f"needs {anchor} and another modality")
        out = dict(arguments)
        if isinstance(arguments.get("pairs"), (list, tuple)):
            out["pairs"] = [pair for pair in arguments["pairs"] if set(pair.split("+")) <= set(left)]
            if not out["pairs"]:
                raise LeftOut(f"needs {' or '.join(arguments['pairs'])}")
        if arguments.get("modalities"):
            out["modalities"] = [name for name in arguments["modalities"] if name in left]
            if not out["modalities"]:
                raise LeftOut(f"needs {' or '.join(arguments['modalities'])}")
        if isinstance(arguments.get("batch_norm"), (list, tuple)):
            out["batch_norm"] = [name for name in arguments["batch_norm"] if name in left]
        if isinstance(arguments.get("mask_ratio"), dict) and "class_path" not in arguments["mask_ratio"]:
            out["mask_ratio"] = {name: value for name, value in arguments["mask_ratio"].items() if name in left}
        return out


def mean_of_terms(
    found: Mapping[str, InfoNCE], step: Step, count: Callable[[Step], Tensor], factor: float = 1.0
) -> dict[str, Tensor] | None:
    """What an objective of contrasts answers: `factor` times the mean over all terms, and the share of each that are right.

    Args:
        found: modality -> its contrast. count: of the terms of a step, for `Step.share`.

    Returns:
        None where there is no term.
    """
    terms = torch.stack([part.terms for part in found.values()]).sum()
    if terms == 0:
        return None
    total = torch.stack([part.total for part in found.values()]).sum()
    out = {"loss": factor * total / terms * step.share(count)}
    return out | {f"accuracy_{name}": part.correct / part.terms for name, part in found.items() if part.terms > 0}


def refuse_single(model: MultimodalModel, owner: str) -> None:
    """Refuses a model of one modality for an objective about several.

    Raises:
        ValueError: it has one.
    """
    if len(model.modalities) < 2:
        raise ValueError(f"{owner} needs a model of two modalities or more")


def two_or_more(arguments: dict[str, Any], left: Collection[str]) -> dict[str, Any]:
    """The arguments of an objective across modalities, already restricted to what is left.

    Raises:
        LeftOut: one modality remains.
    """
    if len(arguments.get("modalities") or left) < 2:
        raise LeftOut("needs two modalities")
    return arguments


def chosen(model: MultimodalModel, modalities: Sequence[str] | None, owner: str) -> tuple[str, ...]:
    """`modalities` in the order of the model's, all of them by default.

    Raises:
        ValueError: one that the model does not have.
    """
    if modalities is None:
        return model.modalities
    unknown = sorted(set(modalities) - set(model.modalities))
    if unknown or not modalities:
        raise ValueError(f"{owner}: modalities {list(modalities)}; the model has {list(model.modalities)}")
    return tuple(name for name in model.modalities if name in modalities)


def others_than(
    model: MultimodalModel, anchor: str, modalities: Sequence[str] | None, owner: str
) -> tuple[str, tuple[str, ...]]:
    """`anchor`, and the modalities that it is compared with: all others by default.

    Raises:
        ValueError: one that the model does not have, or the anchor itself.
    """
    (known,) = chosen(model, [anchor], f"{owner}: anchor")
    others = [name for name in model.modalities if name != anchor] if modalities is None else list(modalities)
    if anchor in others:
        raise ValueError(f"{owner}: {anchor} cannot be matched with itself; name other modalities")
    return known, chosen(model, others, owner)
