"""No number of a training config is without bounds: each wrong one is refused, with its key, before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medssml import cli
from medssml.config import ConfigError, load_config
from medssml.runs.training_config import FinetuneConfig, PretrainConfig

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"

SHARED = [
    ("optim.lr", 0), ("optim.lr", ".inf"), ("optim.weight_decay", -0.1), ("optim.betas", [0.9, 1.0]),
    ("optim.betas", [-0.1, 0.9]), ("optim.warmup", 1), ("optim.warmup_steps", -1), ("optim.final", 2), ("optim.final", -1),
    ("optim.clip_norm", -1), ("optim.momentum", 1), ("optim.momentum", -1), ("optim.scales.encoders", -1),
    ("trainer.max_epochs", 0), ("trainer.max_steps", 0), ("trainer.accumulate", 0), ("trainer.save_every_steps", 0),
    ("trainer.validate_every", -1), ("trainer.patience", 0), ("trainer.ema", 1), ("trainer.ema", ".nan"),
    ("trainer.devices", 0), ("trainer.num_nodes", 0), ("trainer.log_every", 0), ("trainer.limit_train_batches", 0),
    ("trainer.limit_val_batches", 0), ("trainer.bad_steps", 0), ("data.batch_size", 0), ("data.eval_batch_size", 0),
    ("data.num_workers", -1), ("data.prepare_workers", -1), ("data.timeout_s", -1), ("data.quarantine_limit", 2),
    ("data.balance_power", 2), ("shards.window", 0), ("shards.gib", 0), ("seed", -1),
]  # fmt: skip
FINETUNE = [
    ("label_smoothing", 1), ("label_smoothing", -0.1), ("modality_dropout", 1), ("unimodal_weight", -1), ("freeze", -1),
    ("freeze", "encoder"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value"), [*SHARED, *FINETUNE])
def test_a_number_of_a_fine_tuning_outside_its_bounds_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key.replace('.', '[.]')}.*(fix|accepted)"):
        load_config(SMOKE / "finetune.yaml", FinetuneConfig, [f"{key}={value}"])


@pytest.mark.parametrize(("key", "value"), SHARED)
def test_a_number_of_a_pretraining_outside_its_bounds_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"{key.replace('.', '[.]')}.*fix"):
        load_config(SMOKE / "pretrain.yaml", PretrainConfig, [f"{key}={value}"])


@pytest.mark.parametrize("flag", ["--workers -1", "--bootstrap 0", "--bootstrap 19", "--donors 0"])
@pytest.mark.parametrize("verb", ["predict", "embed", "evaluate", "impact"])
def test_a_number_of_a_verb_outside_its_bounds_is_refused_before_anything_is_read(
    verb: str, flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name, value = flag.split()
    if name not in cli.parser_of(verb, cli.function_of(verb)).format_help():
        pytest.skip("a flag of other verbs")
    task = ["--task", "sick"] if verb == "impact" else []
    given = [
        "--checkpoint",
        str(tmp_path / "no"),
        "--manifest",
        str(tmp_path / "no.csv"),
        "--out",
        str(tmp_path / "out"),
    ]
    assert cli.main([verb, *given, *task, name, value]) == 2
    assert f"{name} is {value}; fix: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
