"""What is changed in the networks of other libraries before they are encoders; the names of their weights stay."""

from __future__ import annotations

import math

from torch import Tensor, nn

#: The norms that may stand in the place of batch norm.
NORMS = ("group", "instance")


def replace_batch_norms(module: nn.Module, norm: str = "group") -> None:
    """Puts group norms, of groups of about 8 channels, or instance norms in the place of batch norms.

    The rows of a modality differ from batch to batch, and there may be one only: what a study becomes must not depend on
    its neighbours.
    """
    for name, child in module.named_children():
        if isinstance(child, nn.modules.batchnorm._BatchNorm):
            width = child.num_features
            groups = width if norm == "instance" else math.gcd(width, max(width // 8, 1))
            setattr(module, name, nn.GroupNorm(groups, width))
        else:
            replace_batch_norms(child, norm)


def subsample_before_pointwise(module: nn.Module) -> None:
    """Lets every 2D convolution of one pixel and a stride read a subsampled image, without a stride: the same values.

    With a stride, oneDNN (3.12, of torch 2.13) writes past its workspace in the gradient of the weights of an image with
    channels last and fewer channels than a block, 16 with AVX512 and 8 with AVX2 (oneDNN issue 6035): the process aborts,
    or another tensor holds wrong numbers.
    """
    for part in module.modules():
        if (
            isinstance(part, nn.Conv2d)
            and part.kernel_size == (1, 1)
            and part.stride != (1, 1)
            and part.padding in (0, (0, 0), "valid")
        ):
            part.register_forward_pre_hook(_Subsample(*part.stride))
            part.stride = (1, 1)


class _Subsample:
    """Every `rows`th row and every `columns`th column of what a layer receives."""

    def __init__(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns

    def __call__(self, layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
        return inputs[0][:, :, :: self.rows, :: self.columns]
