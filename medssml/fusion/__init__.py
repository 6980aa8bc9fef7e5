"""Fusion operators: what is present of each study in, one vector per study out."""

from __future__ import annotations

from medssml.fusion.additive import AdditiveFusion
from medssml.fusion.attention_rnn import AttentionRNN
from medssml.fusion.base import Fusion
from medssml.fusion.bottleneck import BottleneckFusion
from medssml.fusion.channel_exchange import ChannelExchange
from medssml.fusion.co_attention import CoAttention
from medssml.fusion.concat import ConcatFusion
from medssml.fusion.cross_modal import CrossModalAttention
from medssml.fusion.cross_modality import CrossModalityEncoder
from medssml.fusion.factorised_bilinear import FactorisedBilinear
from medssml.fusion.factors import FactorFusion
from medssml.fusion.gated import GatedFusion
from medssml.fusion.graph_attention import GraphAttention
from medssml.fusion.latent import LatentFusion
from medssml.fusion.low_rank_bilinear import LowRankBilinear
from medssml.fusion.low_rank_tensor import LowRankTensorFusion
from medssml.fusion.masked_attention import MaskedAttention
from medssml.fusion.mixture_of_experts import MixtureOfExperts
from medssml.fusion.mmformer import MMFormer
from medssml.fusion.multiplicative import MultiplicativeFusion
from medssml.fusion.pattern_routing import PatternRouting
from medssml.fusion.prior_imputation import PriorImputation
from medssml.fusion.product_of_experts import ProductOfExperts
from medssml.fusion.prompted_attention import PromptedAttention
from medssml.fusion.regression_imputation import RegressionImputation
from medssml.fusion.retrieval_imputation import RetrievalImputation
from medssml.fusion.shared_specific import SharedSpecificFusion
from medssml.fusion.tensor import TensorFusion

__all__ = [
    "MMFormer",
    "PriorImputation",
    "RetrievalImputation",
    "RegressionImputation",
    "PromptedAttention",
    "PatternRouting",
    "SharedSpecificFusion",
    "AdditiveFusion",
    "AttentionRNN",
    "BottleneckFusion",
    "ChannelExchange",
    "CoAttention",
    "ConcatFusion",
    "CrossModalAttention",
    "CrossModalityEncoder",
    "FactorisedBilinear",
    "Fusion",
    "FactorFusion",
    "GatedFusion",
    "GraphAttention",
    "LatentFusion",
    "LowRankBilinear",
    "LowRankTensorFusion",
    "MaskedAttention",
    "MixtureOfExperts",
    "MultiplicativeFusion",
    "ProductOfExperts",
    "TensorFusion",
]
