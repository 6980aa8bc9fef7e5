"""What an encoder is: the inputs of one modality in, tokens and one pooled vector per study out.

`MaskableEncoder` adds what masked prediction asks for: the patches to predict, where they are, and which are real.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.config import Configured
from medssml.layers import gather_tokens, masked_mean


class Encoder(Configured, nn.Module):
    """Encodes the studies that have one modality. Rows never see each other.

    Attributes:
        dim: D, the width of tokens and pooled.
    """

    dim: int

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes `inputs` of n rows.

        Args:
            inputs: the modality's tensor (n, ...) or dict of such tensors; see `medssml.batch.Batch`.
            keep: (n, K) int64 indices of the tokens to compute, -1 where a row keeps fewer; None computes all.
            layers: how many of the last blocks' outputs to give along, for objectives that read them.

        Returns:
            Encoded with tokens (n, N, D), or (n, K, D) in keep's order; mask alike, False where keep is -1; pooled (n, D).
        """
        raise NotImplementedError

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs | None:
        """A part of each row's input that this encoder takes, `share` of it along each of its axes; None where there is none.

        Args:
            place: (n, 3) in [0, 1), where among all places the part lies; one number for each axis, the rest unused.
        """
        return None


class MaskableEncoder(Encoder):
    """An encoder whose tokens are patches of the input, any subset of which can be encoded alone.

    Attributes:
        patch_dim: P, the length of one patch of `patches`.
        standardised: True where `patches` are already of zero mean and unit size, so that no objective should
            normalise them again.
    """

    patch_dim: int
    standardised: bool = False

    def patches(self, inputs: Inputs, keep: Tensor | None = None) -> Tensor:
        """(n, N, P) what each token shows: the target of masked prediction; (n, K, P) with `keep`."""
        raise NotImplementedError

    def token_mask(self, inputs: Inputs) -> Tensor:
        """(n, N) bool, True where a token is real: no padding channel, within the recording, in the field of view."""
        raise NotImplementedError

    def positions(self, inputs: Inputs) -> Tensor:
        """(n, N, D) the code of where each token is."""
        raise NotImplementedError


def kept_mask(mask: Tensor, keep: Tensor) -> Tensor:
    """(n, K) bool: which of the kept tokens (n, K) are real by mask (n, N); -1 is none."""
    return gather_tokens(mask, keep) & (keep >= 0)


def as_encoded(output: Encoded | Tensor) -> Encoded:
    """Makes an `Encoded` of what a module of the user's own returned: a tensor (n, D) or (n, N, D), or an `Encoded`.

    Raises:
        ValueError: any other shape.
    """
    if isinstance(output, Encoded):
        return output
    if not isinstance(output, Tensor) or output.ndim not in (2, 3):
        shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise ValueError(
            f"an encoder returned {shape}; expected a tensor (n, D) or (n, N, D), or medssml.batch.Encoded"
        )
    tokens = output.unsqueeze(1) if output.ndim == 2 else output
    mask = torch.ones(tokens.shape[:2], dtype=torch.bool, device=tokens.device)
    return Encoded(tokens, mask, output if output.ndim == 2 else masked_mean(tokens, mask))


def refuse_keep(encoder: nn.Module, keep: Tensor | None) -> None:
    """Raises ValueError where `keep` was given to an encoder that cannot leave tokens out."""
    if keep is not None:
        raise ValueError(f"{type(encoder).__name__} has no tokens that can be left out; call it without `keep`")
