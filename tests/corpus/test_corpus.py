"""The fault corpus: every input has its verdict, in time, with the file and a fix, and runs no code.

Deterministic: the same bytes each time. Families: files of each modality, manifests, configs, caches, checkpoints.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from medssml.manifest.levels import LEVELS, level_of
from medssml.readers import READERS, ReadError
from tests.corpus import eeg, kinds, radiographs, settings, stores, tables, texts, values, volumes
from tests.corpus.case import Case

LIMIT_S = 5.0
READABLE = [case for part in (volumes, radiographs, eeg, texts, values) for case in part.cases()]


def identifier(case: Case) -> str:
    return re.sub(r"[^\w.-]+", "_", f"{case.family}-{case.verdict}-{case.name}")


@pytest.mark.parametrize("case", READABLE, ids=identifier)
def test_a_file_has_its_verdict(case: Case, tmp_path: Path) -> None:
    path = case.make(tmp_path)
    start = time.perf_counter()
    try:
        result = READERS[case.family](path)
    except ReadError as error:
        assert case.verdict == "refused", f"refused: {error}"
        message = str(error)
        near = (str(path), str(path.with_suffix("")))  # a recording of several files: the one beside it
        assert error.file.startswith(near) and re.search(case.says, message), message
        assert "fix: " in message and "\n" not in message
        assert "ecret" not in message
    else:
        assert case.verdict != "refused", f"accepted in silence, notes {result.notes}"
        levels = {level_of(getattr(note, "code", "fixed")) for note in result.notes}
        notes = " | ".join(result.notes)
        assert re.search(case.says, notes), notes
        gravest = next((level for level in LEVELS if level in levels), "accepted")
        assert gravest == case.verdict, notes
        if case.oracle is not None:
            case.oracle(result)
    assert time.perf_counter() - start < LIMIT_S
    assert not list(tmp_path.rglob("CODE_RAN"))


@pytest.mark.parametrize("case", kinds.cases(), ids=identifier)
def test_a_kind_of_fault_is_told_at_its_level(case: Case, tmp_path: Path) -> None:
    from medssml.checks.inspection import Job, inspect
    from medssml.checks.limits import Limits

    path = case.make(tmp_path)
    start = time.perf_counter()
    found = inspect(Job(path, case.family), deep=True, limits=Limits()).findings
    assert time.perf_counter() - start < LIMIT_S
    found = [finding for finding in found if finding.code not in ("size", "length", "rate", "spacing")]
    said = " | ".join(f"{finding.code}: {finding.problem}" for finding in found)
    gravest = next((level for level in LEVELS if level in {finding.action for finding in found}), "accepted")
    assert gravest.replace("quarantined", "refused") == case.verdict, said
    assert re.search(case.says, said), said


TABLES, CONFIGS, STORES = tables.cases(), settings.cases(), stores.cases()
#: What says the way out, where a message does not say "fix:".
WAY_OUT = re.compile(r"fix: |did you mean|expected |known |allowed|--plugin|takes ")


def judged(case: Case, path: Path, use: Any, refusal: type[Exception]) -> Any:
    """What `use(path)` gives; a refusal must be of its kind, name the file and say a way out, in time."""
    start = time.perf_counter()
    try:
        result = use(path)
    except refusal as error:
        assert case.verdict == "refused", f"refused: {error}"
        assert re.search(case.says, str(error), re.DOTALL), error
        assert path.name in str(error) or str(path) in str(error) or "key '" in str(error), error
        assert WAY_OUT.search(str(error)), f"no way out: {error}"
        result = None
    else:
        assert case.verdict != "refused", f"accepted in silence: {result}"
    assert time.perf_counter() - start < LIMIT_S
    assert not list(path.parent.rglob("CODE_RAN")) and not Path("CODE_RAN").exists()
    return result


@pytest.mark.parametrize("case", TABLES, ids=identifier)
def test_a_manifest_has_its_verdict(case: Case, tmp_path: Path) -> None:
    from medssml.manifest.manifest import Manifest, ManifestError

    manifest = judged(case, case.make(tmp_path), Manifest.read, ManifestError)
    assert (manifest is None) == (case.verdict == "refused")
    if manifest is not None and case.oracle is not None:
        assert bool(manifest.saved) == (case.verdict == "fixed") and re.search(case.says, " | ".join(manifest.saved))
        case.oracle(manifest)


def built(path: Path) -> Any:
    """What a pretraining builds from a config before it looks at data."""
    from medssml.config import build, load_config
    from medssml.model import MultimodalModel
    from medssml.objectives.base import Objective
    from medssml.runs.training_config import PretrainConfig
    from medssml.transforms.road import built_road

    config = load_config(path, PretrainConfig)
    model = build(config.model, MultimodalModel, at="model")
    for name, node in config.transforms.items():
        built_road(name, node, at=f"transforms.{name}")
    for index, node in enumerate(config.objectives):
        build(node, Objective, at=f"objectives.{index}", model=model)
    return config


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The frameworks are imported before anything is timed."""
    built(settings.config()(tmp_path_factory.mktemp("warm")))


@pytest.mark.usefixtures("warm")
@pytest.mark.parametrize("case", CONFIGS, ids=identifier)
def test_a_config_has_its_verdict(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from medssml.config import ConfigError

    monkeypatch.chdir(tmp_path)
    config = judged(case, case.make(tmp_path), built, ConfigError)
    if config is not None:
        assert config.optim.lr == 1e-3 and config.seed == 7


def opened(case: Case, path: Path) -> Any:
    """The arrays of a cache entry, the weights of a model folder, or the state of a training."""
    if case.family == "cache":
        from medssml.store.cache import Cache, read_entry

        Cache(path.parents[1]).get(path.parent.name + path.stem, lambda: stores.ARRAYS)
        return read_entry(path).arrays
    if case.family == "model":
        from medssml.model import MultimodalModel

        return MultimodalModel.load(path).state_dict()
    from medssml.trainers.checkpoint import load

    return load(path)["weights"]


@pytest.mark.parametrize("case", STORES, ids=identifier)
def test_a_store_has_its_verdict(case: Case, tmp_path: Path) -> None:
    import numpy as np

    from medssml.checkpoint import CheckpointError

    result = judged(case, case.make(tmp_path), lambda path: opened(case, path), CheckpointError)
    truth = {"cache": stores.ARRAYS, "model": stores._model().state_dict(), "checkpoint": stores.STATE["weights"]}
    for name, value in truth[case.family].items() if result is not None else ():
        np.testing.assert_array_equal(np.asarray(result[name]), np.asarray(value))


def test_names_are_unique_and_the_corpus_is_large() -> None:
    every = [*READABLE, *kinds.cases(), *TABLES, *CONFIGS, *STORES]
    counts = Counter(identifier(case) for case in every)
    assert [name for name, count in counts.items() if count > 1] == []
    verdicts = Counter(case.verdict for case in every)
    assert sum(verdicts.values()) - verdicts["accepted"] >= 300 and verdicts["accepted"] >= 50
