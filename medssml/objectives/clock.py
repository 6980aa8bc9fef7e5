"""Where a run stands, and numbers that change as it goes on."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

from medssml.config import Configured


class Clock(NamedTuple):
    """step: optimiser steps before this one. total: of the whole run. epoch: passes over the training studies so far."""

    step: int = 0
    total: int = 1
    epoch: int = 0

    @property
    def done(self) -> float:
        """The share of the run that is behind it, from 0 to 1."""
        return min(1.0, self.step / max(1, self.total))


class Ramp(Configured):
    """A number that goes from `start` to `end` over the first part of a run and then stays: accepted where a number is.

    Args:
        start, end: its first and its last value.
        until: share of the run after which `end` is reached.
        shape: "linear", or "cosine", which leaves and arrives slowly (the momentum of Grill et al. 2020).
    """

    def __init__(
        self, start: float, end: float, until: float = 1.0, shape: Literal["linear", "cosine"] = "linear"
    ) -> None:
        if not 0 < until <= 1:
            raise ValueError(f"until is {until}; fix: a share of the run above 0 and at most 1")
        if shape not in ("linear", "cosine"):
            raise ValueError(f"shape is {shape!r}; accepted: linear, cosine")
        self.start, self.end, self.until, self.shape = start, end, until, shape

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ramp) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    def __repr__(self) -> str:
        return f"Ramp({self.start}, {self.end}, {self.until}, {self.shape!r})"

    def at(self, clock: Clock) -> float:
        """The value now."""
        share = min(1.0, clock.done / self.until)
        if self.shape == "cosine":
            share = 0.5 * (1 - math.cos(math.pi * share))
        return self.start + share * (self.end - self.start)


def value_at(value: float | Ramp, clock: Clock) -> float:
    """A number, or what a ramp says now."""
    return value.at(clock) if isinstance(value, Ramp) else value


def ends(value: float | Ramp) -> tuple[float, ...]:
    """The values between which it stays, for whoever checks bounds."""
    return (value.start, value.end) if isinstance(value, Ramp) else (value,)
