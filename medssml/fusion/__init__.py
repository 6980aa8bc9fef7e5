"""Fusion operators: what is present of each study in, one vector per study out."""

from __future__ import annotations

from medssml.fusion.additive import AdditiveFusion
from medssml.fusion.base import Fusion
from medssml.fusion.bottleneck import BottleneckFusion
from medssml.fusion.concat import ConcatFusion
from medssml.fusion.cross_modal import CrossModalAttention
from medssml.fusion.factorised_bilinear import FactorisedBilinear
from medssml.fusion.gated import GatedFusion
from medssml.fusion.latent import LatentFusion
from medssml.fusion.low_rank_bilinear import LowRankBilinear
from medssml.fusion.low_rank_tensor import LowRankTensorFusion
from medssml.fusion.masked_attention import MaskedAttention
from medssml.fusion.multiplicative import MultiplicativeFusion
from medssml.fusion.tensor import TensorFusion

__all__ = [
    "AdditiveFusion",
    "BottleneckFusion",
    "ConcatFusion",
    "CrossModalAttention",
    "FactorisedBilinear",
    "Fusion",
    "GatedFusion",
    "LatentFusion",
    "LowRankBilinear",
    "LowRankTensorFusion",
    "MaskedAttention",
    "MultiplicativeFusion",
    "TensorFusion",
]
