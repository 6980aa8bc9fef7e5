"""Any network of MONAI, or of your own, as an encoder: what it returns becomes tokens and one vector per study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medssml.batch import Encoded, Inputs
from medssml.encoders.base import Encoder, as_encoded, refuse_keep
from medssml.encoders.crops import crop_image, share_of
from medssml.encoders.surgery import replace_batch_norms, subsample_before_pointwise


class NetworkEncoder(Encoder):
    """A network (n, C, *size) -> vectors, tokens or maps, as the encoder of a modality of images.

    What it returns may be (n, K), a vector; (n, N, K), tokens; (n, K, *map), whose positions are the tokens; a tuple, of
    which the first counts; or a list of maps, of which the last does.

        class_path: NetworkEncoder
        init_args: {network: {class_path: monai.networks.nets.UNETR, init_args: {...}}, input_size: [96, 96, 96]}

    Args:
        network: any module; in a config a class of `monai.networks.nets`, or one that a plugin brings.
        input_size: of one image along its axes. The network runs once on it when it is built, so that one that cannot take it
            is refused then and not in the first step.
        channels: C.
        most_positions: of a map along each axis; a finer one, such as a segmentation's, is averaged to as many.
        norm: "group" puts group norms in the place of batch norms: the rows of a modality differ from batch to batch, and
            there may be one only. "own" leaves the network as it is.

    Raises:
        ValueError: the network does not take such an image, or returns none of these.
    """

    def __init__(
        self,
        network: nn.Module,
        input_size: Sequence[int],
        channels: int = 1,
        most_positions: int = 8,
        norm: str = "group",
    ) -> None:
        super().__init__()
        if norm not in ("group", "own"):
            raise ValueError(f"norm {norm!r}; accepted: group, own")
        self.input_size, self.channels, self.most_positions = tuple(input_size), channels, most_positions
        self.network = network
        if norm == "group":
            replace_batch_norms(network)
        subsample_before_pointwise(network)
        self.dim = self._tried()

    def _tried(self) -> int:
        """D of what the network returns; it is left as it was."""
        name, training = type(self.network).__name__, self.network.training
        try:
            with torch.no_grad():
                encoded = self._encoded(self.network.eval()(torch.zeros(1, self.channels, *self.input_size)))
        except (RuntimeError, ValueError, IndexError, TypeError, AttributeError, NotImplementedError) as error:
            size = (self.channels, *self.input_size)
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{name} does not take an image {size}: {reason}; fix: change input_size or {name}"
            ) from error
        finally:
            self.network.train(training)
        return int(encoded.pooled.shape[-1])

    def forward(self, inputs: Inputs, keep: Tensor | None = None, layers: int = 0) -> Encoded:
        """Encodes inputs (n, C, *input_size); `keep` must be None. The one layer that is known is the output."""
        refuse_keep(self, keep)
        if not 0 <= layers <= 1:
            raise ValueError(
                f"{layers} layers are asked for; of a network inside NetworkEncoder its output alone is known"
            )
        encoded = self._encoded(self.network(cast(Tensor, inputs)))
        return encoded._replace(layers=(encoded.tokens,) * layers)

    def crop(self, inputs: Inputs, share: float, place: Tensor) -> Inputs | None:
        """(n, C, *input_size) a window, enlarged to the one size that is known to be taken; see `Encoder.crop`.

        None for inputs of one axis: numbers in a row, such as principal components, have no neighbours to be shown with.
        """
        if len(self.input_size) == 1:
            return None
        size = [share_of(length, share) for length in self.input_size]
        window = crop_image(cast(Tensor, inputs), size, place[:, : len(size)])
        return F.interpolate(window, self.input_size, mode="bilinear" if len(size) == 2 else "trilinear")

    def _encoded(self, output: Any) -> Encoded:
        if isinstance(output, (tuple, list)) and output:
            output = output[0 if isinstance(output, tuple) else -1]
        if isinstance(output, Tensor) and output.ndim == len(self.input_size) + 2:
            output = _positions(output, self.most_positions)
        return as_encoded(output)


def _positions(maps: Tensor, most: int) -> Tensor:
    """(n, N, K) the positions of maps (n, K, *size), at most `most` along each axis."""
    size = [min(n, most) for n in maps.shape[2:]]
    if size != list(maps.shape[2:]):
        pool: Any = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[len(size)]
        maps = pool(maps, size)
    return maps.flatten(2).transpose(1, 2)
