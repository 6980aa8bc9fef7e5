"""What is measured of a modality by hand, beside what its encoder learns: hand-made features as part of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from medssml.batch import Batch, Encoded, Inputs
from medssml.config import Configured

Array = NDArray[np.float64]

#: Share of the largest variance, or of 1, below which a direction, or a measure, is taken for one that does not vary.
LEAST = 1e-6


class Descriptor(Configured, nn.Module):
    """z = V x - c: measures x of one modality on directions V, of mean 0 and a mean variance of 1 among the training studies.

    What is measured has no weights and is fitted once, before the first step, to all training studies, without labels. It stands
    in the model's state with the weights. Before it is fitted, and where training studies do not vary, z is 0.

    Args:
        measures: R, how many numbers are measured.
        components: K, how many directions.
    """

    def __init__(self, measures: int, components: int) -> None:
        super().__init__()
        if not 1 <= components <= measures:
            raise ValueError(f"components is {components}, expected 1 to {measures}, as many as are measured")
        self.dim = components
        self.register_buffer("directions", torch.zeros(components, measures))
        self.register_buffer("offset", torch.zeros(components))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.directions: Tensor
        self.offset: Tensor
        self.fitted: Tensor

    def measure(self, inputs: Inputs) -> Tensor:
        """(n, R) float32 of the inputs of n rows, which never see each other."""
        raise NotImplementedError

    @torch.no_grad()
    def forward(self, inputs: Inputs) -> Tensor:
        """(n, K) of the inputs of n rows, in no less than float32 under autocast too."""
        with torch.autocast(self.directions.device.type, enabled=False):
            return self.measure(inputs).to(self.directions) @ self.directions.T - self.offset

    def see(self, inputs: Inputs, subjects: Tensor) -> None:
        """Takes some training studies into account: the inputs of n rows and their (n,) subjects."""
        raise NotImplementedError

    def learn(self) -> None:
        """Fits the directions to what was seen, and forgets it; nothing where fewer than two studies were seen."""
        raise NotImplementedError

    def _fit(self, directions: Array, offset: Array) -> None:
        """Takes (K', R) directions and (K',) offset, K' at most K."""
        self.directions[: len(directions)] = torch.as_tensor(directions)
        self.offset[: len(offset)] = torch.as_tensor(offset)
        self.fitted.fill_(True)


class Descriptors(nn.ModuleDict):
    """Modality -> its descriptor, of the modalities that have one."""

    def width(self, modality: str) -> int:
        """K of a modality, 0 where it has none."""
        return cast(Descriptor, self[modality]).dim if modality in self else 0

    def beside(self, modality: str, part: Encoded, inputs: Inputs, whole: bool) -> Encoded:
        """`part` whose pooled (n, K + D) begins with what is measured of `inputs`; its tokens stay as they are.

        Args:
            whole: the encoder saw the whole inputs. Where it saw some tokens alone, measures would tell of the rest: they are 0.
        """
        if modality not in self:
            return part
        measured = self[modality](inputs) if whole else part.pooled.new_zeros(len(part.pooled), self.width(modality))
        return part._replace(pooled=torch.cat([measured.to(part.pooled.dtype), part.pooled], dim=1))

    def fit(self, studies: Iterable[Batch]) -> None:
        """Fits those that nothing was fitted to yet, in one pass over all training studies."""
        new = {name: cast(Descriptor, one) for name, one in self.items() if not bool(cast(Descriptor, one).fitted)}
        for batch in studies if new else ():
            for name in new.keys() & batch.inputs.keys():
                new[name].see(batch.inputs[name], batch.subject[batch.rows(name)])
        for descriptor in new.values():
            descriptor.learn()

    def follow(self, others: Descriptors) -> None:
        """Those that nothing was fitted to yet take what `others`, of the same classes, were fitted to."""
        for name in self.keys() & others.keys():
            if not bool(cast(Descriptor, self[name]).fitted):
                self[name].load_state_dict(others[name].state_dict())


def widened(tokens: Tensor, width: int) -> Tensor:
    """(n, N, width) tokens (n, N, D) in the width of what is pooled, with 0, the mean, where pooled has what is measured."""
    missing = width - tokens.shape[-1]
    return F.pad(tokens, (missing, 0)) if missing else tokens
