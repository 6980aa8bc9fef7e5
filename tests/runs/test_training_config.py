"""The configs of a training as objects; one whose encoders and transforms do not have the same modalities is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from medssml.config import ConfigError, load_config, resolved_config
from medssml.runs.training_config import Architecture, Finetuning, PretrainConfig
from medssml.schema import plain
from medssml.shipped_configs import config_path, shipped_names


@pytest.fixture
def values() -> dict:  # type: ignore[type-arg]
    """A shipped config, as its file has it."""
    return yaml.safe_load(config_path("smoke/pretrain", "pretrain").read_text())  # type: ignore[no-any-return]


@pytest.mark.parametrize("schema", [PretrainConfig, Architecture])
@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("transforms", "encoder of eeg without a transform: no study would reach it; fix: transforms.eeg"),
        ("encoders", "transform of eeg without an encoder: nothing would read it; fix: model.encoders.eeg"),
    ],
)
def test_what_is_on_one_side_only_is_refused(schema: type, gone: str, words: str, values: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(values))
    load_config(path, schema)
    del (values["transforms"] if gone == "transforms" else values["model"]["init_args"]["encoders"])["eeg"]
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(ConfigError, match=words):
        load_config(path, schema)


@pytest.mark.parametrize("name", shipped_names("pretrain"))
def test_what_is_written_is_what_was_resolved_in_its_order(name: str) -> None:
    path = config_path(name, "pretrain")
    assert json.dumps(load_config(path, PretrainConfig).written()) == json.dumps(
        resolved_config(path, PretrainConfig)[0]
    )


def test_a_finetuning_writes_its_architecture_first_and_targets_only_where_some_were_stated() -> None:
    architecture = load_config(config_path("smoke/pretrain", "pretrain"), Architecture)
    found = Finetuning(tasks=["malignant"], start="hash")
    written = found.written()
    assert (
        written["tasks"] == ["malignant"] and written["start"] == "hash" and written["trainer"] == plain(found.trainer)
    )
    assert not {"architecture", "model", "transforms", "targets"} & set(written)
    scratch = replace(found, architecture=architecture, targets=["malignant=binary"]).written()
    assert list(scratch) == ["model", "transforms", *written, "targets"]
    assert scratch["model"] == architecture.model and scratch["targets"] == ["malignant=binary"]
