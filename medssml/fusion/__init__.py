"""Fusion operators: what is present of each study in, one vector per study out."""

from __future__ import annotations

from medssml.fusion.additive import AdditiveFusion
from medssml.fusion.base import Fusion
from medssml.fusion.concat import ConcatFusion
from medssml.fusion.masked_attention import MaskedAttention

__all__ = ["AdditiveFusion", "ConcatFusion", "Fusion", "MaskedAttention"]
