"""Which device there is, and which number format is right on it."""

from __future__ import annotations

import torch

from medssml.trainers.settings import Precision


def device_type(device: str) -> str:
    """ "cuda" or "cpu" for "auto", "cuda" or "cpu".

    Raises:
        ValueError: a GPU was asked for and there is none.
    """
    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise ValueError("device is cuda, but torch sees no GPU; fix: --device cpu, or install the CUDA build of torch")
    return "cuda" if device != "cpu" and available else "cpu"


def chosen_precision(precision: Precision, device: str) -> Precision:
    """ "32" or "bf16-mixed": what "auto" means on `device` ("cuda" or "cpu"), or what was asked for.

    bf16-mixed on a GPU of Ampere or later, 32 on every CPU: also where a CPU multiplies bf16 faster (AVX512-BF16, AMX), small
    models take three to four times as long in it, and a result must not depend on the processor.
    """
    if precision != "auto":
        return precision
    return "bf16-mixed" if device == "cuda" and torch.cuda.get_device_capability()[0] >= 8 else "32"
