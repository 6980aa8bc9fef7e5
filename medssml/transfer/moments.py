"""Transfer by moments: the student's vectors are distributed as the teacher's of other studies are, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from medssml.losses import coral, mmd
from medssml.model import MultimodalModel
from medssml.objectives.clock import Ramp
from medssml.objectives.step import Step
from medssml.transfer.unpaired import Others, UnpairedTransfer


class MomentTransfer(UnpairedTransfer):
    """loss = distance({(W s, a)} of the student's studies, {(t, b)} of the teacher's)  +  mean over pairs of |W s - t|^2 / D'

    The distance is the squared maximum mean discrepancy [1], or that of covariances [2], of vectors and what is said of them
    side by side, a and b: not only where the vectors lie has to agree, but where those of each class do [3]. They are scaled so
    that vectors and classes have like parts in it. No study need be seen by both; the second term is of those that are.

    It takes both sides for samples of one distribution. Where the teacher's patients have a disease twice as often, it teaches
    the student to say so.

    [1] Gretton et al., JMLR 2012; Long et al., ICML 2015. [2] Sun, Saenko, Deep CORAL, 2016. [3] Long et al., Deep transfer
    learning with joint adaptation networks, ICML 2017: of layers of one network; here of two models of two modalities.

    Args: as of `UnpairedTransfer`, and
        distance: "mmd" or "coral".

    Raises:
        ValueError: an unknown distance; as `UnpairedTransfer`.
    """

    def __init__(
        self,
        model: MultimodalModel,
        *,
        source: Sequence[str],
        tasks: Sequence[str] | None = None,
        others: Others | None = None,
        distance: Literal["mmd", "coral"] = "mmd",
        draw: int = 128,
        target: Sequence[str] | None = None,
        weight: float | Ramp = 1.0,
    ) -> None:
        super().__init__(model, source=source, others=others, tasks=tasks, draw=draw, target=target, weight=weight)
        if distance not in ("mmd", "coral"):
            raise ValueError(f"distance is {distance!r}; accepted: mmd, coral")
        self.distance = mmd if distance == "mmd" else coral

    def forward(self, step: Step) -> dict[str, Tensor] | None:
        """Loss, the distance, and the error of the pairs where there are some; no term of fewer than two studies."""
        if self._judged(step) == 0:
            return None
        mine, others = self.mine(step), self.others(step)
        with torch.autocast(mine.vectors.device.type, enabled=False):
            apart = self.distance(self._joint(mine.vectors, mine.said), self._joint(others.vectors, others.said))
        loss, found = apart * step.share(self._judged), {"distance": apart.detach()}
        if bool(mine.both.any()):
            error = (mine.vectors - mine.theirs)[mine.both].square().mean()
            loss, found["error"] = loss + error * step.share(self.count), error.detach()
        return {"loss": loss, **found}

    def _joint(self, vectors: Tensor, said: Tensor) -> Tensor:
        """(n, D' + C): a distance of 2 D' between vectors that differ altogether, and of 2 D' between classes that do."""
        return torch.cat([vectors, said * (vectors.shape[1] / len(self.tasks)) ** 0.5], dim=1)

    def _judged(self, step: Step) -> Tensor:
        """() studies of all ranks that the student sees, 0 where it is one: it has no covariance."""
        count = self.seen(step)
        return torch.where(count > 1, count, 0)
