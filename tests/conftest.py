"""What all tests share: one thread, keyed randomness, a small simulated cohort and a small model of all four modalities."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from medssml.model import MultimodalModel

# Before NumPy and torch load: several test processes share the cores, one thread each.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["MPLBACKEND"] = "Agg"
os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("MEDSSML_CACHE", None)


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    """Every test starts from the same random state, whichever ran before it, and leaves the console as it was."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    yield
    if "medssml.runs.console" in sys.modules:
        sys.modules["medssml.runs.console"].configure()


@pytest.fixture(scope="session", autouse=True)
def privacy_key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The key of the tests: they never touch the one of who runs them."""
    path = tmp_path_factory.mktemp("key") / "privacy.key"
    os.environ["MEDSSML_PRIVACY_KEY"] = str(path)
    return path


@pytest.fixture(scope="session")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The manifest of 24 simulated studies of all four modalities, about a third of the modalities missing. Read only."""
    from medssml.verbs.phantom import phantom

    out = tmp_path_factory.mktemp("cohort")
    phantom(out=out, studies=24, seed=0, missing=0.3)
    return out / "manifest.csv"


@pytest.fixture
def tiny_model() -> Callable[[], MultimodalModel]:
    """Makes a model of CT, radiograph, EEG and report with one task, a few thousand weights, the same ones each time."""

    def make() -> MultimodalModel:
        import torch

        from medssml.encoders import EEGTransformer, TextEncoder, ViT
        from medssml.fusion import MaskedAttention
        from medssml.model import MultimodalModel, Task

        torch.manual_seed(0)
        encoders = {
            "ct": ViT(input_size=(16, 16, 16), patch_size=8, dim=16, depth=1, heads=2),
            "xray": ViT(input_size=(32, 32), patch_size=8, dim=16, depth=1, heads=2),
            "eeg": EEGTransformer(dim=16, depth=1, heads=2, patch_samples=50, sfreq=100.0),
            "report": TextEncoder(vocab_size=64, dim=16, depth=1, heads=2, max_length=32),
        }
        fusion = MaskedAttention(modalities=tuple(encoders), dim=16, depth=1, heads=2)
        return MultimodalModel(encoders, fusion, {"malignant": Task("binary")})

    return make
