"""Pure functions: tensors in, a sum and its count out."""

from medssml.losses.gather import all_gather_rows, global_max, global_sum, take_part, world_size
from medssml.losses.info_nce import InfoNCE, count_paired, count_terms, info_nce, same
from medssml.losses.local import token_contrast, word_region_similarity
from medssml.losses.masked import masked_mse, normalise_patches
from medssml.losses.moments import coral, mmd
from medssml.losses.nt_xent import nt_xent
from medssml.losses.sigmoid import sigmoid_contrast
from medssml.losses.sinkhorn import sinkhorn, transport
from medssml.losses.soft_dtw import soft_dtw, soft_dtw_divergence
from medssml.losses.tiles import Alike

__all__ = [
    "Alike",
    "InfoNCE",
    "all_gather_rows",
    "coral",
    "count_paired",
    "count_terms",
    "global_max",
    "global_sum",
    "info_nce",
    "masked_mse",
    "mmd",
    "normalise_patches",
    "nt_xent",
    "same",
    "sinkhorn",
    "soft_dtw",
    "soft_dtw_divergence",
    "sigmoid_contrast",
    "take_part",
    "token_contrast",
    "transport",
    "word_region_similarity",
    "world_size",
]
