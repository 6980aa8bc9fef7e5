"""An encoder with a second branch, which imagines from one modality what another would have shown."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import Encoder, as_encoded, refuse_keep


class HallucinatingEncoder(Encoder):
    """[seen; imagined]: what one encoder sees in the input, and beside it what a second one makes of the same input

    Both branches read the poor modality; the second is trained to give the features of the rich one (`HallucinationTransfer`).
    They lie side by side in one vector, so that a head that is linear in it adds the answers of the two [1]. Every token has
    what was imagined of the whole input.

    [1] Hoffman, Gupta, Darrell, Learning with side information through modality hallucination, CVPR 2016.

    Args:
        seeing: the encoder of the modality. imagining: the second branch, of the same inputs.
        width: of what is imagined.
    """

    def __init__(self, seeing: nn.Module, imagining: nn.Module, width: int) -> None:
        super().__init__()
        self.seeing, self.imagining, self.width = seeing, imagining, width
        self.imagine = nn.Linear(int(imagining.dim), width)  # type: ignore[arg-type]
        self.dim = int(seeing.dim) + width  # type: ignore[arg-type]

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encoded with tokens (n, N, D) and pooled (n, D), D = that of the first branch + width; see `Encoder.forward`."""
        refuse_keep(self, keep)
        seen = as_encoded(self.seeing(inputs, **({"layers": layers} if layers else {})))
        imagined = self.imagine(as_encoded(self.imagining(inputs)).pooled)
        everywhere = imagined[:, None].expand(-1, seen.tokens.shape[1], -1)
        tokens = torch.cat([seen.tokens, everywhere.to(seen.tokens.dtype)], dim=2)
        return Encoded(tokens, seen.mask, torch.cat([seen.pooled, imagined.to(seen.pooled.dtype)], dim=1), seen.layers)

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs | None:
        """A part that the first branch takes; the second reads the same inputs. See `Encoder.crop`."""
        return self.seeing.crop(inputs, share, place) if isinstance(self.seeing, Encoder) else None
