"""The benchmark of shards: it runs, and says that the bound was kept."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "pipelines" / "benchmark_shards.py"


@pytest.mark.slow
def test_the_bound_is_kept(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("benchmark_shards", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "mixing", lambda: None)
    module.main(studies=40, epochs=2, shard_mb=12.0, window=2, workers=1)
    said = capsys.readouterr().out
    bound, highest = re.search(r"bound ([0-9.]+) MiB, highest ([0-9.]+) MiB", said).groups()  # type: ignore[union-attr]
    assert 0.5 * float(bound) < float(highest) <= float(bound)
    assert len(re.findall("studies/s", said)) == 4
