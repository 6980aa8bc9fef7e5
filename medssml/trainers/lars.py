"""LARS: SGD whose step is, layer by layer, a share of the size of the weights; for large batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

#: The coefficient of You et al.
TRUST = 0.001


class LARS(torch.optim.Optimizer):
    """v <- momentum v + trust |w| / |g + decay w| (g + decay w),  w <- w - lr v.

    You et al. 2017, as used by SimCLR, BYOL and Barlow Twins: biases and norms are moved by plain SGD with momentum.

    Args:
        params: parameters or groups, of which each may have its own lr and weight_decay; one with trust 0 is moved by
            plain SGD.
        lr: learning rate. momentum: of the steps. weight_decay: L2. trust: the coefficient of You et al.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = TRUST,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "trust": trust})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One step; returns what `closure` returns."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weights in group["params"]:
                if weights.grad is not None:
                    self._move(weights, group)
        return loss

    def _move(self, weights: torch.Tensor, group: dict[str, Any]) -> None:
        gradient = weights.grad
        if gradient is None:
            return
        if group["trust"] > 0:
            gradient = gradient.add(weights, alpha=group["weight_decay"])
            size, length = weights.norm(), gradient.norm()
            ratio = group["trust"] * size / length.clamp(min=1e-12)
            gradient = gradient * torch.where((size > 0) & (length > 0), ratio, torch.ones_like(ratio))
        state = self.state[weights]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(weights)
        state["velocity"].mul_(group["momentum"]).add_(gradient)
        weights.add_(state["velocity"], alpha=-group["lr"])
