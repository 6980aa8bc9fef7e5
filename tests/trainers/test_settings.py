"""No number of a training config is without bounds: each wrong one is refused, with its key, before anything is read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from medssml import cli
from medssml.config import ConfigError, load_config
from medssml.runs.training_config import FinetuneConfig, PretrainConfig
from medssml.trainers.settings import Optim, TrainerSettings

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"

SHARED = [
    ("optim.lr", 0), ("optim.lr", ".inf"), ("optim.weight_decay", -0.1), ("optim.betas", [0.9, 1.0]),
    ("optim.betas", [-0.1, 0.9]), ("optim.warmup", 1), ("optim.warmup_steps", -1), ("optim.final", 2), ("optim.final", -1),
    ("optim.clip_norm", -1), ("optim.momentum", 1), ("optim.momentum", -1), ("optim.scales.encoders", -1),
    ("trainer.max_epochs", 0), ("trainer.max_steps", 0), ("trainer.accumulate", 0), ("trainer.encoder_chunk", 0),
    ("trainer.save_every_steps", 0),
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


NAN, INF = float("nan"), float("inf")

OPTIM = [
    ("lr", 0.0, "above 0 and below inf"), ("lr", INF, "above 0 and below inf"), ("lr", NAN, "above 0 and below inf"),
    ("weight_decay", -0.1, "0 or more and below inf"), ("weight_decay", INF, "0 or more and below inf"),
    ("warmup_steps", -1, "0 or more"), ("clip_norm", -1.0, "0 or more"), ("momentum", 1.0, "0 or more and below 1"),
    ("momentum", -0.1, "0 or more and below 1"),
]  # fmt: skip
OTHERS = [
    (lambda: Optim(warmup=1.0), "optim.warmup, a fraction of all steps (optim.warmup_steps counts them), is 1.0; fix: 0 "
     "or more and below 1"),
    (lambda: Optim(warmup=-0.1), "optim.warmup, a fraction of all steps (optim.warmup_steps counts them), is -0.1; fix: "
     "0 or more and below 1"),
    (lambda: Optim(final=1.1), "optim.final, a fraction of optim.lr, is 1.1; fix: 0 or more and at most 1"),
    (lambda: Optim(final=-0.1), "optim.final, a fraction of optim.lr, is -0.1; fix: 0 or more and at most 1"),
    (lambda: Optim(betas=(0.9, 1.0)), "optim.betas.1 is 1.0; fix: 0 or more and below 1"),
    (lambda: Optim(betas=(-0.1, 0.9)), "optim.betas.0 is -0.1; fix: 0 or more and below 1"),
    (lambda: Optim(scales={"encoders": -1.0}), "optim.scales.encoders is -1.0; fix: 0 or more"),
    (lambda: Optim(name="adam"), "optim.name is 'adam'; accepted: adamw, sgd, lars"),
    (lambda: Optim(schedule="step"), "optim.schedule is 'step'; accepted: cosine, linear, constant"),
    (lambda: TrainerSettings(), "trainer has neither max_epochs nor max_steps; fix: set one, such as max_epochs: 100"),
    (lambda: TrainerSettings(1, validate_every=-1), "trainer.validate_every is -1; fix: 0 or more"),
    (lambda: TrainerSettings(1, ema=0.0), "trainer.ema is 0.0; fix: above 0 and below 1"),
    (lambda: TrainerSettings(1, ema=1.0), "trainer.ema is 1.0; fix: above 0 and below 1"),
    (lambda: TrainerSettings(1, precision="16"), "trainer.precision is '16'; accepted: auto, 32, bf16-mixed"),
]  # fmt: skip
COUNTS = (
    "max_epochs", "max_steps", "accumulate", "save_every_steps", "log_every", "devices", "num_nodes", "patience",
    "limit_train_batches", "limit_val_batches", "bad_steps",
)  # fmt: skip


def told(make: Callable[[], object]) -> str:
    with pytest.raises(ValueError) as caught:
        make()
    return str(caught.value)


@pytest.mark.parametrize(("name", "value", "ends"), OPTIM)
def test_a_setting_of_the_optimiser_is_told_with_its_bounds(name: str, value: float, ends: str) -> None:
    assert told(lambda: Optim(**{name: value})) == f"optim.{name} is {value}; fix: {ends}"


@pytest.mark.parametrize(("make", "text"), OTHERS)
def test_a_wrong_setting_is_told_with_the_way_out(make: Callable[[], object], text: str) -> None:
    assert told(make) == text


@pytest.mark.parametrize("name", COUNTS)
def test_what_is_counted_is_one_at_least(name: str) -> None:
    assert told(lambda: TrainerSettings(**{"max_steps": 1, name: 0})) == f"trainer.{name} is 0; fix: 1 or more"
    assert getattr(TrainerSettings(**{"max_steps": 1, name: 1}), name) == 1


def test_the_ends_of_the_bounds_are_within() -> None:
    least = Optim(
        weight_decay=0.0, betas=[0.0, 0.0], warmup=0.0, warmup_steps=0, final=0.0, clip_norm=0.0, momentum=0.0,
        scales={"encoders": 0.0},
    )  # fmt: skip
    assert least.betas == (0.0, 0.0)
    assert Optim(final=1.0).final == 1.0
    for name in ("adamw", "sgd", "lars"):
        assert Optim(name=name).name == name
    for schedule in ("cosine", "linear", "constant"):
        assert Optim(schedule=schedule).schedule == schedule
    assert TrainerSettings(1, validate_every=0).validate_every == 0
    for precision in ("auto", "32", "bf16-mixed"):
        assert TrainerSettings(1, precision=precision).precision == precision
    # YAML reads 32 as a number.
    assert TrainerSettings(1, precision=32).precision == "32"


def test_the_shorter_of_epochs_and_steps_ends_a_run_and_there_is_one_step_at_least() -> None:
    assert TrainerSettings(max_epochs=2, max_steps=5).total_steps(3) == 5
    assert TrainerSettings(max_epochs=1, accumulate=4).total_steps(2) == 1
    assert TrainerSettings(max_epochs=2, limit_train_batches=9).epoch_batches(4) == 4
    assert TrainerSettings(max_epochs=2, limit_train_batches=3).epoch_batches(4) == 3
