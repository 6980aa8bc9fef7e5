"""The benchmark of CT reading: what it compares is the same sample, and the comparison comes out on the right side."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "benchmark_ct.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_ct", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_same_sample_in_a_tenth_of_the_time(benchmark: ModuleType, tmp_path: Path) -> None:
    """Processor time, which other programs on the machine change little; the page on benchmarks has the figures."""
    candidates = benchmark.readers(benchmark.write_chest(tmp_path / "chest.nii.gz"))
    samples = {name: np.asarray(sample()) for name, sample in candidates.items()}
    assert samples["medssml"].shape == (1, *benchmark.CROP) and np.ptp(samples["medssml"]) > 0.5
    for name in ("MONAI eager", "MONAI lazy"):
        np.testing.assert_allclose(samples["medssml"], samples[name], atol=1e-3)
    timings = benchmark.measure(candidates, 2)
    assert timings["MONAI eager"].cpu > 10 * timings["medssml"].cpu
    assert timings["MONAI lazy"].cpu > 2.5 * timings["medssml"].cpu
