"""Numbers that a run keeps for each training study: what it was answered so far, or how much it is believed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from medssml.losses import all_gather_rows
from medssml.objectives.held import Held


class PerStudy(nn.Module):
    """A row of numbers for each training study, by its index; zeros for one that nothing was kept of.

    A forward pass offers rows, and the hook after the step writes them: a step sees none of its own, and what a skipped step
    saw never enters. All ranks hold the same. Part of a run's state, and as long as the run has studies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("rows", torch.zeros(0, 0))
        self.rows: Tensor
        self.held = Held()

    def of(self, index: Tensor, width: int) -> Tensor:
        """(n, width) rows of the studies at index (n,); zeros also where it is -1."""
        if self.rows.shape[1] != width:
            return self.rows.new_zeros(len(index), width)
        known = (index >= 0) & (index < len(self.rows))
        return torch.where(known[:, None], self.rows[index.clamp(0, len(self.rows) - 1)], 0.0)

    def offer(self, index: Tensor, rows: Tensor, at: int) -> None:
        """Keeps rows (n, W) of the studies at index (n,), all of them at least 0, for `taken`; at: see `Held`."""
        self.held.put((index, rows), at)

    @torch.no_grad()
    def taken(self) -> tuple[Tensor, Tensor] | None:
        """(k,) index and (k, W) rows that were offered on all ranks, the mean where a study was seen more than once; None
        where nothing was."""
        held = self.held.take()
        if not held:
            return None
        index, rows = (all_gather_rows(torch.cat(parts)) for parts in zip(*held, strict=True))
        studies, place = index.unique(return_inverse=True)
        total = rows.new_zeros(len(studies), rows.shape[1]).index_add(0, place, rows)
        return studies, total / torch.bincount(place, minlength=len(studies))[:, None]

    @torch.no_grad()
    def write(self, index: Tensor, rows: Tensor) -> None:
        """The studies at index (k,), each once, get rows (k, W)."""
        if len(index) == 0:
            return
        studies = max(len(self.rows), int(index.max()) + 1)
        longer = self.rows.new_zeros(studies, rows.shape[1])
        if self.rows.shape[1] == rows.shape[1]:
            longer[: len(self.rows)] = self.rows
        longer[index] = rows.to(longer)
        self.rows = longer

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        # As many studies as the run that was saved has.
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape != self.rows.shape:
            self.rows = self.rows.new_zeros(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *args)
