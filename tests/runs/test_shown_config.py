"""--print-config: what a run would use, where each value comes from, and a file that means the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssml import cli
from medssml.config import load_config
from medssml.runs.training_config import FinetuneConfig, PretrainConfig
from medssml.schema import plain
from medssml.shipped_configs import config_path, shipped_names


def printed(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert cli.main(argv) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", shipped_names("pretrain"))
def test_what_is_printed_is_a_config_that_means_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["--set", "optim.lr=1e-5", "--set", "trainer.precision=32", "--seed", "7"]
    text = printed(capsys, "pretrain", "--config", name, "--print-config", *given)
    (tmp_path / "again.yaml").write_text(text)
    overrides = ["optim.lr=1e-5", "trainer.precision=32", "seed=7"]
    assert load_config("again.yaml", PretrainConfig) == load_config(
        config_path(name, "pretrain"), PretrainConfig, overrides
    )
    assert [path.name for path in tmp_path.iterdir()] == ["again.yaml"]


def test_each_value_says_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--config", "simclr", "--set", "model.fusion.depth=2", "--set", "model.encoders.xray.widths=[2, 4]"]
    lines = printed(capsys, "pretrain", *given, "--seed", "4", "--print-config").splitlines()
    said = {line.split("#")[0].strip(): line.partition("# ")[2] for line in lines}
    assert said["depth: 2"] == "--set model.fusion.depth=2"
    assert said["widths: [2, 4]"] == "--set model.encoders.xray.widths=[2, 4]"
    assert said["- class_path: SimCLR"].startswith("configs/pretrain/simclr.yaml:")
    assert said["vocab_size: 256"].startswith("configs/pretrain/small.yaml:")
    assert said["modalities: null"] == "default"  # the objectives of the base are replaced as a whole
    assert (said["momentum: 0.9"], said["seed: 4"]) == ("default", "--set seed=4")


def test_a_finetuning_from_scratch_shows_the_model_that_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--checkpoint", "none", "--architecture", "small", "--config", "cohort", "--freeze", "encoders"]
    text = printed(capsys, "finetune", *given, "--print-config")
    assert "class_path: EEGTransformer" in text and "configs/pretrain/small.yaml:" in text
    assert "freeze: encoders" in text and "--set freeze=encoders" in text and "configs/finetune/cohort.yaml:" in text


def test_as_json_it_is_the_result(capsys: pytest.CaptureFixture[str]) -> None:
    found = json.loads(printed(capsys, "finetune", "--config", "frozen", "--print-config", "--json"))
    assert found["config"] == plain(load_config(config_path("frozen", "finetune"), FinetuneConfig))
