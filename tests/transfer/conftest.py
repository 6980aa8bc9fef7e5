"""The two models of most transfers."""

from __future__ import annotations

import pytest

from medssml.model import MultimodalModel
from tests.examples import tiny_model


@pytest.fixture(scope="module")
def student() -> MultimodalModel:
    return tiny_model().eval()


@pytest.fixture(scope="module")
def teacher() -> MultimodalModel:
    return tiny_model(seed=5).eval()
