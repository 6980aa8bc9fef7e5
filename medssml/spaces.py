"""Spaces that an objective trains beside the model: projections in which vectors meet, and the norms before them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.config import Configured


class GatheredNorm(nn.BatchNorm1d):
    """(x - mean) / sd per feature over the rows of all ranks, differentiated; in evaluation by running statistics.

    For the input of an objective's head (Chen et al. 2020, whose projection heads have it too). What all studies have in
    common is most of an encoder's mean feature and lets a head neither tell studies apart nor name what is rare;
    a gradient that passes through the statistics (Ioffe and Szegedy 2015) leaves the common part alone and moves only
    what differs. Here, and not in the model, as a study's embedding must not depend on its batch.

    Args:
        dim: D. affine: a learned scale and shift per feature follow.
    """

    def __init__(self, dim: int, *, affine: bool = False) -> None:
        super().__init__(dim, affine=affine)

    def forward(self, input: Tensor) -> Tensor:
        """(n, D) from x (n, D), the rows of all ranks; fewer than two rows go by the running statistics."""
        with torch.autocast(input.device.type, enabled=False):
            if not self.training or len(input) < 2:
                return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
            if not torch.isfinite(input).all():
                # A step that is not finite is skipped; what it saw must not stay in the running statistics.
                return F.batch_norm(input, None, None, self.weight, self.bias, training=True, eps=self.eps)
            return super().forward(input)


def gathered_norms(dim: int, modalities: Iterable[str], wanted: bool | Sequence[str]) -> nn.ModuleDict:
    """Modality -> its `GatheredNorm` where it is wanted, by all or by the names given, else the identity.

    Raises:
        ValueError: a name that is none of `modalities`.
    """
    known = list(modalities)
    chosen = known if wanted is True else list(wanted or ())
    unknown = [name for name in chosen if name not in known]
    if unknown:
        raise ValueError(f"batch_norm names {', '.join(unknown)}; fix: true, false, or some of {', '.join(known)}")
    return nn.ModuleDict({name: GatheredNorm(dim) if name in chosen else nn.Identity() for name in known})


class ProjectionHead(nn.Sequential):
    """Linear -> GELU -> linear, from D to the space of the contrast (Chen et al. 2020).

    Args:
        width: D of what comes in. dim: of what goes out. bias: of the last layer; False where the loss takes the mean away.
    """

    def __init__(self, width: int, dim: int, bias: bool = True) -> None:
        super().__init__(nn.Linear(width, width), nn.GELU(), nn.Linear(width, dim, bias=bias))


class NormedHead(nn.Sequential):
    """Linear -> norm over the rows of all ranks -> ReLU, `layers` - 1 times, then linear (Grill et al. 2020).

    The heads of methods that have no negatives, in which the norm keeps what differs between studies.

    Args:
        width: D of what comes in. hidden: of the layers between. dim: of what goes out. layers: how many are linear.
    """

    def __init__(self, width: int, hidden: int, dim: int, layers: int = 2) -> None:
        widths = [width] + [hidden] * (layers - 1)
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            # No bias: the norm would take it away.
            steps += [nn.Linear(before, after, bias=False), GatheredNorm(after, affine=True), nn.ReLU()]
        super().__init__(*steps, nn.Linear(widths[-1], dim))


class SharedSpace(Configured, nn.Module):
    """The space in which modalities were made to meet: z = unit(head_m(norm_m(pooled of m))).

    An objective that trains one keeps it with the model, so that retrieval and zero-shot classification look for
    neighbours where they were trained to be (Radford et al. 2021), batch norm included.

    Args:
        width: D of the pooled vectors. dim: of the space.
        modalities: that have a place in it.
        batch_norm: of which modalities, or all or none, the vectors are normalised over all ranks first (`GatheredNorm`).
    """

    def __init__(
        self, width: int, dim: int, modalities: Sequence[str], batch_norm: bool | Sequence[str] = True
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities)
        self.dim = dim
        self.norms = gathered_norms(width, self.modalities, batch_norm)
        self.heads = nn.ModuleDict({name: ProjectionHead(width, dim) for name in self.modalities})

    def forward(self, modality: str, pooled: Tensor) -> Tensor:
        """(n, dim) unit vectors, float32 or better, of pooled (n, D), in training the rows of all ranks."""
        projected = self.heads[modality](self.norms[modality](pooled))
        return F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=1)


__all__ = ["GatheredNorm", "NormedHead", "ProjectionHead", "SharedSpace", "gathered_norms"]
