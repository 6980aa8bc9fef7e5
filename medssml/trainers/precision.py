"""Which number format a device is fast at."""

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


def has_fast_bf16(device: str) -> bool:
    """Whether `device` ("cuda" or "cpu") multiplies bf16 faster than fp32.

    A CPU does so with AVX512_BF16 or AMX units, and only where oneDNN, which uses them, is built in and switched on;
    everywhere else bf16 is emulated and slower.
    """
    if device == "cuda":
        return torch.cuda.get_device_capability()[0] >= 8
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if not _onednn_takes_bf16():
        return False
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _onednn_takes_bf16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def chosen_precision(precision: Precision, device: str) -> Precision:
    """ "32" or "bf16-mixed": what "auto" means on `device`, or what was asked for."""
    if precision != "auto":
        return precision
    return "bf16-mixed" if has_fast_bf16(device) else "32"
