"""What features are divided by before anything weighs them against each other."""

from __future__ import annotations

import numpy as np

from medssml.statistics.bootstrap import Array

#: Standard deviation below which a feature does not vary, and is left as it is.
LEAST = 1e-6


def feature_scale(x: Array, block: int = 0) -> Array:
    """(D,) the standard deviation of each feature of x (n, D), and one for all of the first `block`; 1 where nothing varies.

    What is measured by hand has a scale of its own (`medssml.encoders.Descriptor`): a rare word is a small feature. A penalty on
    weights, or a cosine, for which it is as large as a common one learns from words that one or two studies have.
    """
    sd = x.std(axis=0)
    if block:
        sd[:block] = np.sqrt(np.mean(sd[:block] ** 2))
    return np.where(sd > LEAST, sd, 1.0)
