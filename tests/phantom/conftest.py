"""One rendered cohort of each preset with nothing missing, which the tests of this folder measure."""

from __future__ import annotations

import pytest

from medssml.phantom import draw, simulate
from medssml.phantom.presets import PRESETS
from tests.phantom.studies import DESIGN, Rendered


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("phantom")
    simulate(folder, DESIGN, draws=1000, workers=1)
    return Rendered(folder, draw(DESIGN), PRESETS["large"])


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    folder = tmp_path_factory.mktemp("small")
    simulate(folder, DESIGN, preset="small", draws=1000, workers=1)
    return Rendered(folder, draw(DESIGN), PRESETS["small"])
