"""Parts of what a modality shows: the local views of methods that compare parts with the whole (Caron et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def share_of(length: int, share: float, step: int = 1) -> int:
    """`share` of a length, as a multiple of `step`, at least one."""
    return max(1, round(share * (length // step))) * step


def crop_image(images: Tensor, size: Sequence[int], place: Tensor) -> Tensor:
    """(n, C, *size) a window of each image (n, C, *whole), at a place (n, axes) in [0, 1) of where it can lie."""
    room = torch.tensor([whole - part + 1 for whole, part in zip(images.shape[2:], size, strict=True)])
    starts = (place.cpu() * room).long().tolist()
    windows = [
        image[(slice(None), *(slice(at, at + part) for at, part in zip(start, size, strict=True)))]
        for image, start in zip(images, starts, strict=True)
    ]
    return torch.stack(windows) if windows else images.new_zeros(0, images.shape[1], *size)


def crop_rows(values: Tensor, start: Tensor, length: int) -> Tensor:
    """(n, ..., length) of values (n, ..., L), each row from its start (n,) on; what lies beyond L repeats the last."""
    steps = start.unsqueeze(1) + torch.arange(length, device=values.device)
    steps = steps.clamp(max=values.shape[-1] - 1).view(len(values), *[1] * (values.ndim - 2), length)
    return values.gather(-1, steps.expand(*values.shape[:-1], length))
