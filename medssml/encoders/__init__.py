"""Encoders: one modality in, tokens and a pooled vector out. Imported when first asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.encoders.base import Encoder, MaskableEncoder
    from medssml.encoders.cnn import ResNet
    from medssml.encoders.descriptor import Descriptor
    from medssml.encoders.eeg import EEGTransformer
    from medssml.encoders.hallucinating import HallucinatingEncoder
    from medssml.encoders.heads import Head
    from medssml.encoders.image_descriptors import CTDescriptor, XrayDescriptor
    from medssml.encoders.network import NetworkEncoder
    from medssml.encoders.table import TableEncoder
    from medssml.encoders.text import TextEncoder
    from medssml.encoders.vit import ViT
    from medssml.encoders.word_descriptor import WordDescriptor

__all__ = [
    "CTDescriptor",
    "Descriptor",
    "EEGTransformer",
    "Encoder",
    "HallucinatingEncoder",
    "Head",
    "MaskableEncoder",
    "NetworkEncoder",
    "ResNet",
    "TableEncoder",
    "TextEncoder",
    "ViT",
    "WordDescriptor",
    "XrayDescriptor",
]

_HOME = {
    "CTDescriptor": "image_descriptors",
    "Descriptor": "descriptor",
    "EEGTransformer": "eeg",
    "Encoder": "base",
    "HallucinatingEncoder": "hallucinating",
    "Head": "heads",
    "MaskableEncoder": "base",
    "NetworkEncoder": "network",
    "ResNet": "cnn",
    "TableEncoder": "table",
    "TextEncoder": "text",
    "ViT": "vit",
    "WordDescriptor": "word_descriptor",
    "XrayDescriptor": "image_descriptors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
