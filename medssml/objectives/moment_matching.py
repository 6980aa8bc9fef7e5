"""Moment matching: modalities are made to be distributed alike in one space, without knowing which studies belong together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Literal

import torch
from torch import Tensor

from medssml.losses import coral, mmd
from medssml.model import MultimodalModel
from medssml.objectives.base import Objective, chosen
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.spaces import SharedSpace


class MomentMatching(Objective):
    """loss = mean over pairs (m, n) of modalities of  distance(z of all studies with m, z of all studies with n)

    The distance is the squared maximum mean discrepancy [1] or that of covariances [2]. No pair is needed; who has both counts
    on both sides. By itself it is least where all vectors are one: take it beside objectives that hold studies apart.

    [1] Gretton et al., JMLR 2012; Long et al., ICML 2015. [2] Sun, Saenko, Deep CORAL, 2016.

    Args:
        model: the model.
        modalities: of which; all by default.
        distance: "mmd" or "coral".
        dim: of the space.
        batch_norm: before the projection, of all modalities or of those named; it aligns mean and variance by itself.
        weight: in the sum of objectives.

    Raises:
        ValueError: fewer than two modalities, or an unknown distance.
    """

    across = True

    def __init__(
        self,
        model: MultimodalModel,
        *,
        modalities: Sequence[str] | None = None,
        distance: Literal["mmd", "coral"] = "mmd",
        dim: int = 128,
        batch_norm: bool | Sequence[str] = False,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, weight=weight)
        if distance not in ("mmd", "coral"):
            raise ValueError(f"distance is {distance!r}; accepted: mmd, coral")
        names = chosen(model, modalities, "MomentMatching")
        if len(names) < 2:
            raise ValueError(f"MomentMatching needs two modalities; it has {list(names)}")
        self.distance = mmd if distance == "mmd" else coral
        self.pairs = tuple(combinations(names, 2))
        self.space = SharedSpace(model.dim, dim, names, batch_norm)

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, and the distance of each pair of modalities of which there are two studies each."""
        vectors = {name: self.space(name, step.pooled_of_all(name)) for name in self.space.modalities}
        counts = self._counts(step)
        if not bool((counts > 0).any()):
            return None
        zero = next(iter(vectors.values())).new_zeros(())
        means = torch.stack(
            [
                self.distance(vectors[m], vectors[n]) if count > 0 else zero
                for (m, n), count in zip(self.pairs, counts, strict=True)
            ]
        )
        logged = zip(self.pairs, means.detach(), counts, strict=True)
        return {
            "loss": step.mean_of_means(means, self._counts),
            **{f"distance_{m}+{n}": mean for (m, n), mean, count in logged if count > 0},
        }

    def _counts(self, step: Step) -> Tensor:
        """(pairs,) studies of all ranks on both sides, 0 where a side has fewer than two."""
        sizes = {
            name: int(step.everyone.present[:, step.model.modalities.index(name)].sum())
            for name in self.space.modalities
        }
        found = [sizes[m] + sizes[n] if min(sizes[m], sizes[n]) > 1 else 0 for m, n in self.pairs]
        return torch.tensor(found, device=step.present.device)
