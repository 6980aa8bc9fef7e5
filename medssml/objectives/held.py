"""What a forward pass leaves for the hook after the step."""

from __future__ import annotations

from torch import Tensor


class Held:
    """Tensors of the batches of one step of the optimiser, kept until the step is done.

    A step that was skipped takes nothing out: what it held is forgotten when the next one begins. No part of a run's state,
    as nothing is held between steps.
    """

    def __init__(self) -> None:
        self._tensors: list[tuple[Tensor, ...]] = []
        self._at = -1

    def put(self, tensors: tuple[Tensor, ...], at: int) -> None:
        """Keeps them, without gradient; at: the step of the run."""
        if at != self._at:
            self._tensors, self._at = [], at
        self._tensors.append(tuple(tensor.detach() for tensor in tensors))

    def take(self) -> list[tuple[Tensor, ...]]:
        """What was kept, in its order, and no longer is."""
        taken, self._tensors = self._tensors, []
        return taken
