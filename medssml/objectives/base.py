"""What an objective is: something to learn without labels, asked of a `Step`."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from medssml.config import Configured
from medssml.model import MultimodalModel
from medssml.objectives.step import Step


class Objective(Configured, nn.Module):
    """A loss, its own heads, and what it asks of the model.

    It reads the model's widths when it is built and holds no reference to it: the step brings the model, so its
    parameters are trained and saved once.

    Args:
        model: the model that it will be asked with.
        weight: its share in the sum of objectives; applied by the trainer, not here.
    """

    _handed_in = ("model",)

    def __init__(self, model: MultimodalModel, *, weight: float = 1.0) -> None:
        super().__init__()
        if not weight > 0:
            raise ValueError(f"weight of {type(self).__name__} is {weight}; expected a positive number")
        self.weight = weight

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """The loss of the whole batch over all ranks, scalar, under "loss", and detached scalars to be logged.

        None where the batch of no rank holds anything to learn from. All ranks get the same answer.
        """
        raise NotImplementedError


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
