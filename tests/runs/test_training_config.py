"""A config whose encoders and transforms do not have the same modalities: something would be left out without a word."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from medssml.config import ConfigError, load_config
from medssml.runs.training_config import Architecture, PretrainConfig
from medssml.shipped_configs import config_path


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
