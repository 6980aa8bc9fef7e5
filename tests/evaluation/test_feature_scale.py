"""One scale for what is measured by hand: wherever features are weighed against each other."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from medssml.encoders import WordDescriptor
from medssml.evaluation.encoded_studies import EncodedStudies
from medssml.evaluation.feature_scale import feature_scale
from medssml.evaluation.probes import held_out_logits, linear_readout
from medssml.evaluation.study_vectors import StudyVectors
from medssml.evaluation.suspects import joined_embeddings
from tests.encoders.test_descriptors import SPECIAL, WORDS, fitted, reports


def test_a_block_is_divided_by_one_number_and_the_rest_each_by_its_own() -> None:
    x = np.random.default_rng(0).normal(size=(500, 4)) * [3.0, 1.0, 5.0, 0.2]
    sd = x.std(0)
    np.testing.assert_allclose(feature_scale(x), sd)
    both = np.sqrt((sd[0] ** 2 + sd[1] ** 2) / 2)
    np.testing.assert_allclose(feature_scale(x, 2), [both, both, *sd[2:]])
    assert (feature_scale(np.zeros((5, 3)), 2) == 1).all()


def test_a_readout_of_all_components_is_the_regression_on_tfidf() -> None:
    """A rotation changes no penalty: what few reports share is as unlikely to count as it is in TF-IDF."""
    inputs = reports(120)
    y = (np.arange(120) % 3 == 0).astype(float)
    words = fitted(WordDescriptor(WORDS, WORDS - SPECIAL - 1, pairs=0, min_subjects=1), inputs)
    texts = [[str(int(t)) for t in row if t >= SPECIAL] for row in inputs["input_ids"]]
    tfidf = TfidfVectorizer(analyzer=lambda text: text, sublinear_tf=True).fit_transform(texts).toarray()
    with torch.no_grad():
        z = words(inputs).double().numpy()
    found = linear_readout(z, y, np.arange(120), block=z.shape[1])
    assert not isinstance(found, str)
    one = np.sqrt((tfidf - tfidf.mean(0)).var(0).sum() / z.shape[1])
    oracle = LogisticRegression(C=found.setting["C"], max_iter=5000, tol=1e-9).fit(tfidf / one, y)
    answered = z @ found.weight.T + found.bias
    expected = oracle.decision_function(tfidf / one)
    # One component of 24 was left out.
    assert np.corrcoef(answered[:, 0], expected)[0, 1] > 0.999
    apart = linear_readout(z, y, np.arange(120))
    assert not isinstance(apart, str)
    assert np.corrcoef((z @ apart.weight.T)[:, 0], expected)[0, 1] < 0.99
    held = held_out_logits(z, y, np.arange(120), 1.0, block=z.shape[1])
    assert np.abs(held - held_out_logits(z, y, np.arange(120), 1.0)).max() > 0.1


def test_vectors_of_studies_keep_the_proportions_of_what_is_measured() -> None:
    draw = torch.Generator().manual_seed(0)
    raw = torch.randn(50, 4, generator=draw) * torch.tensor([3.0, 0.3, 5.0, 0.2])
    present, ids = torch.ones(50, 1, dtype=torch.bool), tuple(map(str, range(50)))
    studies = EncodedStudies({}, present, ("report",), ids, np.arange(50), {}, {}, {"report": raw}, {"report": 2})
    for some in (studies, studies.take(np.arange(50))):
        sd = some.standardised("report").std(0)
        assert sd[0] > 5 * sd[1]
        np.testing.assert_allclose(sd[2:], 1)
        np.testing.assert_allclose((sd[:2] ** 2).mean(), 1)
        np.testing.assert_allclose(joined_embeddings(some)[:, 1:], some.standardised("report"))
        spread = StudyVectors.of(some).x.std(0)
        assert spread[0] > 3 * spread[1]
