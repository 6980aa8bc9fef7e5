"""Pure functions: tensors in, a sum and its count out."""

from medssml.losses.barlow import cross_correlation, redundancy
from medssml.losses.canonical import canonical_correlations
from medssml.losses.dino import centred_and_sharpened, mean_over_pairs
from medssml.losses.gather import all_gather_rows, global_max, global_sum, take_part, world_size
from medssml.losses.info_nce import InfoNCE, count_paired, count_terms, info_nce, same
from medssml.losses.ipot import ipot
from medssml.losses.local import token_contrast, word_region_similarity
from medssml.losses.masked import masked_mse, normalise_patches
from medssml.losses.moments import coral, mmd
from medssml.losses.nt_xent import nt_xent
from medssml.losses.sigmoid import sigmoid_contrast
from medssml.losses.sinkhorn import sinkhorn, transport
from medssml.losses.soft_dtw import soft_dtw, soft_dtw_divergence
from medssml.losses.tiles import Alike
from medssml.losses.vicreg import VICRegTerms, vicreg_terms

__all__ = [
    "Alike",
    "InfoNCE",
    "VICRegTerms",
    "all_gather_rows",
    "canonical_correlations",
    "centred_and_sharpened",
    "coral",
    "count_paired",
    "count_terms",
    "cross_correlation",
    "global_max",
    "global_sum",
    "info_nce",
    "ipot",
    "masked_mse",
    "mean_over_pairs",
    "mmd",
    "normalise_patches",
    "nt_xent",
    "redundancy",
    "same",
    "sigmoid_contrast",
    "sinkhorn",
    "soft_dtw",
    "soft_dtw_divergence",
    "take_part",
    "token_contrast",
    "transport",
    "vicreg_terms",
    "word_region_similarity",
    "world_size",
]
