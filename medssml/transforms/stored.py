"""The entries of a MONAI dictionary as arrays that the cache can store, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from medssml.transforms.base import NOTES, Prepared

_TEXT, _JSON, _WITHIN = ":text", ":json", "."


def packed(entries: Mapping[Any, Any]) -> Prepared:
    """Entry -> array. Tensors and arrays stay themselves; a text, and other plain values, become UTF-8; a dict of tensors
    becomes one array for each. Meta data of a MetaTensor is left out: it has done its work.

    Raises:
        TypeError: a value that is none of these.
    """
    arrays: Prepared = {}
    for key, value in entries.items():
        if isinstance(value, (torch.Tensor, np.ndarray)):
            arrays[str(key)] = np.ascontiguousarray(np.asarray(value))
        elif isinstance(value, dict):
            arrays.update({f"{key}{_WITHIN}{name}": np.asarray(part) for name, part in value.items()})
        elif isinstance(value, str):
            arrays[f"{key}{_TEXT}"] = np.frombuffer(value.encode("utf-8"), dtype=np.uint8)
        else:
            arrays[f"{key}{_JSON}"] = np.frombuffer(json.dumps(value).encode("utf-8"), dtype=np.uint8)
    return arrays


def unpacked(arrays: Prepared) -> dict[str, Any]:
    """The entries that `packed` stored, as tensors of their own."""
    entries: dict[str, Any] = {}
    for name, array in arrays.items():
        if name == NOTES:
            continue
        if name.endswith(_TEXT):
            entries[name.removesuffix(_TEXT)] = bytes(array).decode("utf-8")
        elif name.endswith(_JSON):
            value = json.loads(bytes(array))
            entries[name.removesuffix(_JSON)] = tuple(value) if isinstance(value, list) else value
        elif _WITHIN in name:
            key, _, part = name.partition(_WITHIN)
            entries.setdefault(key, {})[part] = torch.from_numpy(np.array(array))
        else:
            entries[name] = torch.from_numpy(np.array(array))
    return entries
