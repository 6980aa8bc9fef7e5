"""How alike studies are by what both have: a loop over pairs; the graph of neighbours, edge by edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medssml.batch import Encoded
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.study_vectors import StudyVectors


def studies(n: int = 30, seed: int = 0) -> EncodedStudies:
    """Studies of two modalities, of which either may be absent; the last study has none."""
    g = torch.Generator().manual_seed(seed)
    present = torch.rand(n, 2, generator=g) < 0.7
    present[:2], present[-1] = True, False
    raw = {m: torch.randn(int(present[:, j].sum()), 5 + j, generator=g) * 7 + 3 for j, m in enumerate(("ct", "eeg"))}
    encoded = {m: Encoded(x[:, None], torch.ones(len(x), 1, dtype=torch.bool), x) for m, x in raw.items()}
    return EncodedStudies(encoded, present, ("ct", "eeg"), tuple(map(str, range(n))), np.arange(n), {}, {}, dict(raw))


def test_similarity_is_the_mean_cosine_over_what_both_studies_have() -> None:
    given = studies()
    found = StudyVectors.of(given)
    vectors = {}
    for modality in ("ct", "eeg"):
        x = given.raw[modality].numpy().astype(float)
        x = (x - x.mean(0)) / x.std(0)
        rows = np.flatnonzero(given.has[:, given.column(modality)])
        vectors[modality] = dict(zip(rows.tolist(), x, strict=True))
    a, b = np.array([0, 3, 7, 29]), np.arange(30)
    seen = set()
    for i, row in enumerate(found.similarity(a, b)):
        for j, value in enumerate(row):
            cosines = [
                float(v[a[i]] @ v[j] / np.linalg.norm(v[a[i]]) / np.linalg.norm(v[j]))
                for v in vectors.values()
                if a[i] in v and j in v
            ]
            seen.add(len(cosines))
            assert value == pytest.approx(np.mean(cosines) if cosines else 0.0, abs=1e-9)
    assert seen == {0, 1, 2}


def test_the_graph_holds_the_most_similar_studies_both_ways_and_nobody_himself() -> None:
    found = StudyVectors.of(studies())
    graph = found.neighbour_graph(4, power=2.0).toarray()
    everyone = found.similarity(np.arange(30), np.arange(30))
    expected = np.zeros((30, 30))
    for i in range(30):
        others = sorted((j for j in range(30) if j != i), key=lambda j: (-everyone[i, j], j))[:4]
        for j in others:
            expected[i, j] += max(everyone[i, j], 0) ** 2
            expected[j, i] += max(everyone[i, j], 0) ** 2
    np.testing.assert_allclose(graph, expected, atol=1e-12)
    assert not graph.diagonal().any() and StudyVectors.of(studies(3)).neighbour_graph(20).shape == (3, 3)
