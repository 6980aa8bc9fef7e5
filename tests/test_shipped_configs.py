"""Shipped configs by name, from any folder, from a checkout and from a wheel alike."""

from __future__ import annotations

from dataclasses import make_dataclass, replace
from pathlib import Path

import pytest

from medssml import cli, shipped_configs
from medssml.config import ConfigError, load_config
from medssml.runs.training_config import FinetuneConfig, PretrainConfig
from medssml.shipped_configs import config_path, shipped_folder, shipped_names


@pytest.mark.parametrize("given", ["cohort", "cohort.yaml", "pretrain/cohort", "configs/pretrain/cohort.yaml"])
def test_a_name_means_the_same_file_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path(given, "pretrain") == shipped_folder() / "pretrain" / "cohort.yaml"


def test_a_bare_name_is_looked_for_among_those_of_the_verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config_path("cohort", "finetune").parent.name == "finetune"
    assert config_path("smoke/finetune", "finetune").parent.name == "smoke"
    (tmp_path / "cohort").mkdir()  # a folder of that name, such as a simulated cohort, is no config
    assert config_path("cohort", "finetune").parent.name == "finetune"
    (tmp_path / "cohort").rmdir()
    (tmp_path / "cohort").write_text("seed: 1\n")  # a file of one's own goes first
    assert config_path("cohort", "finetune") == Path("cohort")


@pytest.mark.parametrize("kind", ["pretrain", "finetune"])
def test_every_listed_name_is_a_config_of_that_kind(kind: str) -> None:
    names = shipped_names(kind)
    assert {"cohort", "small", "phantom"} <= set(names)
    for name in names:
        load_config(config_path(name, kind), {"pretrain": PretrainConfig, "finetune": FinetuneConfig}[kind])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("chort", "chort: no such config file, and none shipped for pretrain has this name; did you mean 'cohort'?"),
        ("configs/pretrain/smal.yaml", "did you mean 'small'?"),
        ("../cohort", "did you mean"),
        ("/cohort", "did you mean 'cohort'"),
        ("x.yaml", "fix: check the path"),
        ("", "no such config file"),
    ],
)
def test_an_unknown_name_is_told_the_nearest_and_all(given: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config_path(given, "pretrain")
    said = str(caught.value)
    assert words in said and said.endswith(", ".join(shipped_names("pretrain"))) and "\n" not in said


@pytest.mark.parametrize(
    "argv",
    [
        "pretrain --config chort --manifest m.csv --out run",
        "prepare --config chort --manifest m.csv",
        "finetune --checkpoint none --architecture chort --manifest m.csv --task t --out run",
        "finetune --checkpoint none --architecture small --config chort --manifest m.csv --task t --out run",
        "finetune --checkpoint some --config chort --manifest m.csv --task t --out run",
    ],
)
def test_every_verb_with_a_config_says_so_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], argv: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv.split()) == 2
    assert "chort: no such config file" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_package_finds_its_own_copy_where_it_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("pretrain", "smoke"):
        (tmp_path / "medssml" / "configs" / folder).mkdir(parents=True)
    base = tmp_path / "medssml" / "configs" / "pretrain" / "small.yaml"
    base.write_text("seed: 3\n")
    base.with_name("mine.yaml").write_text("base: small.yaml\n")
    monkeypatch.setattr(shipped_configs, "__file__", str(tmp_path / "medssml" / "shipped_configs.py"))
    assert load_config(config_path("mine", "pretrain"), make_dataclass("Seed", [("seed", int)])).seed == 3


def test_a_config_of_ones_own_may_build_on_a_shipped_one(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("base: pretrain/small\noptim: {lr: 0.5}\n")
    shipped, own = (load_config(file, PretrainConfig) for file in (config_path("small", "pretrain"), mine))
    assert own == replace(shipped, optim=replace(shipped.optim, lr=0.5))
    (tmp_path / "pretrain").mkdir()
    (tmp_path / "pretrain" / "small").write_text("seed: x\n")  # a file beside it goes first
    with pytest.raises(ConfigError, match="'model' of PretrainConfig is missing"):
        load_config(mine, PretrainConfig)
    mine.write_text("base: small.yam\n")
    with pytest.raises(ConfigError, match="mine.yaml:1: base 'small.yam' is not there; fix: .* pretrain/small"):
        load_config(mine, PretrainConfig)
