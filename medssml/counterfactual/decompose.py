"""What is left of a model of two modalities once every interaction is taken out (EMAP).

[1] Hessel and Lee, Does my multimodal model learn cross-modal interactions? EMNLP 2020.
"""

from __future__ import annotations

from medssml.statistics.bootstrap import Array


def emap(grid: Array) -> Array:
    """The additive model nearest to f, at the N studies: mean_j f(a_i, b_j) + mean_j f(a_j, b_i) - mean f [1].

    Args:
        grid: (N, N) f(a_i, b_j), modality a of study i with modality b of study j.

    Returns:
        (N,). On accuracy EMAP can miss a synergy (AND and OR lose nothing); look at the probabilities too.
    """
    return grid.mean(axis=1) + grid.mean(axis=0) - grid.mean()
