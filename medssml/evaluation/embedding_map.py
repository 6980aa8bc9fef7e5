"""A picture of an embedding: two coordinates per study."""

from __future__ import annotations

import numpy as np

from medssml.statistics.bootstrap import Array

#: Beyond this many studies the picture is of a sample.
MOST = 2000
#: Principal components that t-SNE starts from.
COMPONENTS = 30


def embedding_map(vectors: Array, *, seed: int = 0) -> Array:
    """(N, 2) coordinates: t-SNE of the first principal components; below 10 studies the two first components.

    Distances between far groups mean nothing in it; near neighbours do.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    count, width = vectors.shape
    if count < 3 or np.allclose(vectors, vectors[:1]):
        return np.zeros((count, 2))
    reduced = PCA(min(COMPONENTS, count, width), random_state=seed).fit_transform(vectors)
    if count < 10 or reduced.shape[1] < 2:
        return np.pad(reduced, ((0, 0), (0, 2)))[:, :2]
    perplexity = min(30.0, (count - 1) / 4)
    return TSNE(2, perplexity=perplexity, init="pca", random_state=seed).fit_transform(reduced).astype(np.float64)
