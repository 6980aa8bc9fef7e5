"""A run: its clock, its guard against NaN, its checkpoints, its stop, its resumption."""

from __future__ import annotations

import logging
import signal
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from medssml.model import Task
from medssml.objectives import Objective, Step
from medssml.privacy import short_code
from medssml.trainers import checkpoint, loop
from medssml.trainers.callback import losses_in_words
from medssml.trainers.checkpoint import CheckpointError
from medssml.trainers.history import read
from medssml.trainers.judges import TaskJudge
from medssml.trainers.learner import Learner, NonFiniteError, objective_names, step_seed
from medssml.trainers.loop import fit
from medssml.trainers.optim import lr_factor
from medssml.trainers.settings import Optim, TrainerSettings

from .toy import ToyLoader, toy_model, toy_run, tuner


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


@pytest.mark.parametrize("stop_at", [4, 6, 12])
def test_a_stopped_run_goes_on_to_the_very_same_weights(tmp_path: Path, stop_at: int) -> None:
    whole, done = toy_run(tmp_path / "whole")
    assert done.status == "done" and done.step == 24

    loader = ToyLoader()
    loader.before_batch = lambda step: signal.raise_signal(signal.SIGTERM) if step == stop_at else None
    _, stopped = toy_run(tmp_path / "parts", loader=loader)
    assert (stopped.status, stopped.exit_code) == ("stopped", 75) and stopped.step in (
        stop_at - 1,
        stop_at,
        stop_at + 1,
    )

    resumed, done = toy_run(tmp_path / "parts")
    assert done.status == "done" and same_weights(resumed.model, whole.model)
    rows = [[{k: v for k, v in row.items() if k != "seconds"} for row in read(tmp_path / n / "history.csv")] for n in
            ("whole", "parts")]  # fmt: skip
    assert rows[0] == rows[1]


def test_signals_are_as_before_afterwards(tmp_path: Path) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    toy_run(tmp_path, max_steps=2)
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_run_that_is_done_is_not_run_again(tmp_path: Path) -> None:
    first, _ = toy_run(tmp_path)
    loader = ToyLoader()
    loader.before_batch = lambda step: pytest.fail("a batch was read")
    again, outcome = toy_run(tmp_path, loader=loader)
    assert outcome.skipped and same_weights(first.model, again.model)


def test_another_config_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    toy_run(tmp_path, max_steps=2)
    with pytest.raises(CheckpointError, match="another config; fix: .*--fresh"):
        toy_run(tmp_path, max_steps=2, identity={"config": "other"})


def test_the_learning_rate_and_the_rows_follow_the_step(tmp_path: Path) -> None:
    learner, _ = toy_run(tmp_path, log_every=1)
    rows = read(tmp_path / "history.csv")
    assert [row["step"] for row in rows] == list(range(1, 25))
    expected = [0.01 * lr_factor(step, 24, learner.optim) for step in range(24)]
    assert [row["lr"] for row in rows] == pytest.approx(expected, rel=1e-4)
    assert all("train/loss" in row and "train/grad_norm" in row for row in rows)
    assert [row["step"] for row in rows if "val/auroc" in row] == [6, 12, 18, 24]


def test_the_model_that_is_kept_is_the_best_of_the_validations(tmp_path: Path) -> None:
    learner, outcome = toy_run(tmp_path)
    scores = [row["val/auroc"] for row in read(tmp_path / "history.csv") if "val/auroc" in row]
    assert outcome.score == pytest.approx(max(scores), rel=1e-4)
    best = checkpoint.load(tmp_path / "checkpoints" / "best.ckpt")
    assert all(torch.equal(best["weights"]["model"][name], value) for name, value in learner.model.state_dict().items())


def test_training_stops_early_when_validation_gets_no_better(tmp_path: Path) -> None:
    learner = tuner(toy_model(), None, Optim(lr=1e-20))
    _, outcome = toy_run(tmp_path, learner=learner, max_epochs=50, ema=None, patience=3)
    scores = [row["val/auroc"] for row in read(tmp_path / "history.csv") if "val/auroc" in row]
    # No weight moves; the first scores still differ, as the statistics of the features follow the first batches.
    assert outcome.status == "done" and len(scores) == scores.index(max(scores)) + 1 + 3 < 50
    assert outcome.step == len(scores) * 6
    assert toy_run(tmp_path, max_epochs=50, ema=None, patience=3)[1].skipped


class NotANumberFirst(TaskJudge):
    """Its first score is not a number, nor is every one when `always`."""

    def __init__(self, always: bool) -> None:
        super().__init__({"sick": Task("binary")})
        self.always, self.looks = always, 0

    def score(self, metrics: Mapping[str, float]) -> float | None:
        self.looks += 1
        return float("nan") if self.always or self.looks == 1 else super().score(metrics)


@pytest.mark.parametrize("always", [False, True])
def test_a_score_that_is_not_a_number_is_never_the_best(tmp_path: Path, always: bool) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.01), seed=3)
    learner.judge = NotANumberFirst(always)
    _, outcome = toy_run(tmp_path, learner=learner, patience=3 if always else None, max_epochs=5)
    if always:
        assert outcome.score is None and outcome.step == 3 * 6, "the looks without a number count for patience"
        return
    scores = [row["val/auroc"] for row in read(tmp_path / "history.csv") if "val/auroc" in row]
    assert outcome.score == pytest.approx(max(scores[1:]), rel=1e-4)


def test_the_running_mean_of_the_weights_is_the_closed_form(tmp_path: Path) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.05))
    head = learner.model.heads["sick"].linear
    seen = []
    step = learner.optimizer_step

    def watch(*args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        step(*args, **kwargs)
        seen.append(head.weight.detach().clone())

    learner.optimizer_step = watch  # type: ignore[method-assign]
    fit(learner, ToyLoader(), tmp_path, TrainerSettings(max_steps=4, ema=0.9, device="cpu", precision="32"))
    expected = seen[0]  # the mean begins with the weights after the first step
    for weights in seen[1:]:
        expected = 0.9 * expected + 0.1 * weights
    torch.testing.assert_close(head.weight.detach(), expected)


class Poisoned(ToyLoader):
    """From batch `start` to before `end`, the CT of one study is NaN."""

    def __init__(self, start: int, end: int) -> None:
        super().__init__()
        self.range = range(start, end)

    def take(self):  # type: ignore[no-untyped-def]
        step, batch = self.step, super().take()
        if step in self.range:
            batch.inputs["ct"][0] = float("nan")
        return batch


def test_a_step_that_is_not_finite_is_skipped_and_its_studies_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.01))
    named: list[str] = []
    learner.on_bad = named.extend
    moved = []
    loader = Poisoned(3, 5)
    original = learner.configure_gradient_clipping

    def watch(optimizer: torch.optim.Optimizer, *args: object, **kwargs: object) -> None:
        original(optimizer, *args, **kwargs)
        moved.append(any(p.grad is not None for p in learner.model.parameters()))

    learner.configure_gradient_clipping = watch  # type: ignore[method-assign]
    with caplog.at_level(logging.WARNING, "medssml"):
        outcome = fit(learner, loader, tmp_path, TrainerSettings(max_steps=8, device="cpu", precision="32"))
    assert outcome.status == "done" and outcome.step == 8
    assert moved == [True] * 3 + [False] * 2 + [True] * 3
    assert len(named) == 16 and all(name.startswith("study-") for name in named)
    assert short_code(named[0]) in caplog.text and "study-" not in caplog.text
    assert all(bool(torch.isfinite(value).all()) for value in learner.model.state_dict().values())


def test_a_skipped_step_is_no_step_of_the_running_mean(tmp_path: Path) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.05))
    head = learner.model.heads["sick"].linear
    good: list[torch.Tensor] = []
    step = learner.optimizer_step

    def watch(*args, **kwargs) -> None:  # type: ignore[no-untyped-def]
        step(*args, **kwargs)
        if learner.bad_in_a_row == 0:
            good.append(head.weight.detach().clone())

    learner.optimizer_step = watch  # type: ignore[method-assign]
    fit(learner, Poisoned(2, 5), tmp_path, TrainerSettings(max_steps=6, ema=0.9, device="cpu", precision="32"))
    assert len(good) == 3
    torch.testing.assert_close(head.weight.detach(), 0.9 * (0.9 * good[0] + 0.1 * good[1]) + 0.1 * good[2])


def test_after_ten_such_steps_the_run_ends_and_no_checkpoint_holds_nan(tmp_path: Path) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.01))
    settings = TrainerSettings(max_steps=40, save_every_steps=1, device="cpu", precision="32")
    with pytest.raises(NonFiniteError, match="10 steps in a row") as caught:
        fit(learner, Poisoned(2, 100), tmp_path, settings)
    assert caught.value.exit_code == 3
    state = checkpoint.load_last(tmp_path / "checkpoints")
    assert state is not None
    assert all(bool(torch.isfinite(value).all()) for value in state["learner"]["weights"].values())


class Distance(Objective):
    """Mean square of the fused vector, over studies that have a CT: none, no term."""

    def __init__(self, model, *, sign: float = 1.0, weight: float = 1.0) -> None:  # type: ignore[no-untyped-def]
        super().__init__(model, weight=weight)
        self.sign = sign
        self.head = torch.nn.Linear(model.dim, 1)

    def forward(self, step: Step) -> dict[str, torch.Tensor] | None:
        having = step.present[:, 0]
        if not bool(having.any()):
            return None
        return {
            "loss": self.sign * self.head(step.fused.pooled[having]).square().mean(),
            "share": having.float().mean(),
        }


def test_pretraining_sums_the_objectives_that_are_defined(tmp_path: Path) -> None:
    model = toy_model()
    objectives = [Distance(model, weight=2.0), Distance(model, weight=0.5)]
    learner = Learner(model, objectives, Optim()).eval()
    assert learner.names == ["distance", "distance_2"] == objective_names(objectives)
    batch = ToyLoader().batch(torch.arange(8))
    found = learner.terms(batch)
    torch.testing.assert_close(found["loss"], 2 * found["distance/loss"] + 0.5 * found["distance_2/loss"])
    assert learner.terms(batch.without("ct")) == {}


def test_a_batch_without_any_term_is_a_step_that_moves_nothing(tmp_path: Path) -> None:
    class OnlyReports(ToyLoader):
        def take(self):  # type: ignore[no-untyped-def]
            batch = super().take()
            return batch.without("ct")

    model = toy_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    learner = Learner(model, [Distance(model)], Optim(weight_decay=0.0))
    outcome = fit(learner, OnlyReports(), tmp_path, TrainerSettings(max_steps=3, device="cpu", precision="32"))
    assert outcome.status == "done"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_pretraining_watches_for_collapse_and_probes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = toy_model()
    learner = Learner(model, [Distance(model)], Optim(lr=0.01))
    fit(
        learner,
        ToyLoader(),
        tmp_path,
        TrainerSettings(max_epochs=2, device="cpu", precision="32"),
        val=ToyLoader(studies=64, seed=9),
    )
    last = read(tmp_path / "history.csv")[-1]
    for name in ("loss", "distance/loss", "rankme", "feature_spread", "uniformity", "probe_auroc/sick"):
        assert f"val/{name}" in last
    torch.nn.init.zeros_(model.fusion.mlp[-1].weight)
    with caplog.at_level(logging.WARNING, "medssml"), torch.no_grad():
        learner.judge.validate(learner.eval(), ToyLoader(seed=9))
    assert "collapsed" in caplog.text


def test_a_mean_of_the_validation_counts_studies_and_not_batches() -> None:
    model = toy_model()
    learner = Learner(model, [Distance(model)], Optim()).eval()
    batches = [ToyLoader().batch(torch.arange(0, 7)), ToyLoader().batch(torch.arange(7, 9))]
    with torch.no_grad():
        first, second = (float(learner.terms(batch)["loss"]) for batch in batches)
        found = learner.judge.validate(learner, batches)
    assert abs(first - second) > 1e-3
    assert found["loss"] == pytest.approx((7 * first + 2 * second) / 9)


def test_the_seed_of_a_step_is_its_own() -> None:
    assert step_seed(0, 5) == step_seed(0, 5, 0) != step_seed(0, 5, 1)
    assert len({step_seed(seed, batch) for seed in range(5) for batch in range(50)}) == 250


def test_bf16_autocast_runs_and_a_resume_in_another_precision_is_refused(tmp_path: Path) -> None:
    toy_run(tmp_path, precision="bf16-mixed")
    state = checkpoint.load_last(tmp_path / "checkpoints")
    assert state is not None and state["precision"] == "bf16-mixed"
    assert all(bool(torch.isfinite(value).all()) for value in state["learner"]["weights"].values())
    with pytest.raises(CheckpointError, match="fix: --precision bf16-mixed, or --fresh"):
        toy_run(tmp_path, precision="32")
    assert toy_run(tmp_path, precision="bf16-mixed")[1].skipped


def test_who_looks_on_is_told_of_every_step_with_the_parts_of_the_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Watcher:
        def __init__(self) -> None:
            self.seen: list[tuple[int, int, int, bool]] = []

        def step(self, step: int, total: int, studies: int, means: Mapping[str, float]) -> None:
            self.seen.append((step, total, studies, "train/loss" in means))

    watcher, settings = Watcher(), TrainerSettings(max_steps=4, accumulate=2, log_every=2, device="cpu", precision="32")
    learner = tuner(toy_model(), None, Optim(lr=0.01), seed=3)
    with caplog.at_level(logging.INFO, logger="medssml"):
        fit(learner, ToyLoader(size=8), tmp_path, settings, watcher=watcher)
    assert watcher.seen == [(1, 4, 16, False), (2, 4, 16, True), (3, 4, 16, False), (4, 4, 16, True)]
    assert any(record.message.startswith("step 4/4  loss ") for record in caplog.records)


def test_the_loss_is_said_with_its_parts_where_it_has_several() -> None:
    one = {"train/loss": 2.0, "train/supervised/loss": 2.0}
    assert losses_in_words(one) == "  loss 2.0000"
    assert (
        losses_in_words({**one, "train/words/loss": 0.5, "train/grad_norm": 1.0})
        == "  loss 2.0000 (supervised 2, words 0.5)"
    )
    assert losses_in_words({"lr": 1.0}) == ""


class Handed(Exception):
    """What the trainer was made with."""


@pytest.mark.parametrize(
    ("devices", "nodes", "strategy"),
    [(1, 1, "auto"), (2, 1, "ddp_find_unused_parameters_true"), (1, 2, "ddp_find_unused_parameters_true")],
)
def test_several_processes_share_their_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, devices: int, nodes: int, strategy: str
) -> None:
    def made(**options: object) -> None:
        raise Handed(options)

    monkeypatch.setattr(loop.pl, "Trainer", made)
    monkeypatch.setattr(loop.SLURMEnvironment, "detect", lambda: nodes > 1)
    settings = TrainerSettings(
        max_steps=4, devices=devices, num_nodes=nodes, accumulate=3, device="cpu", precision="bf16-mixed"
    )
    with pytest.raises(Handed) as caught:
        fit(tuner(toy_model(), None, Optim()), ToyLoader(), tmp_path, settings)
    (options,) = caught.value.args
    assert (options["devices"], options["num_nodes"], options["strategy"]) == (devices, nodes, strategy)
    assert (options["accelerator"], options["precision"], options["accumulate_grad_batches"]) == (
        "cpu",
        "bf16-mixed",
        3,
    )
    # Each rank takes its own part of a batch already, and a job that is stopped is queued again by whoever started it.
    assert options["use_distributed_sampler"] is False
    plugins = options["plugins"]
    assert plugins is None if nodes == 1 else [plugin.auto_requeue for plugin in plugins] == [False]


def test_a_run_writes_into_its_folder_alone_and_says_nothing_of_lightning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    logging.getLogger("lightning.pytorch").setLevel(logging.INFO)
    learner = tuner(toy_model(), None, Optim(lr=0.01), freeze="encoders")
    outcome = fit(learner, ToyLoader(), tmp_path / "run", TrainerSettings(max_steps=3, device="cpu", precision="32"))
    assert outcome.step == 3 and list((tmp_path / "here").iterdir()) == []
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == ["checkpoints", "history.csv"]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == [checkpoint.LAST]
    told = capfd.readouterr()
    assert "%" not in told.out + told.err and "params" not in told.out + told.err and "Trainable" not in told.err
    assert logging.getLogger("lightning.pytorch").level == logging.WARNING
    assert not [w for w in recwarn if "LeafSpec" in str(w.message) or "eval mode" in str(w.message)]


def test_a_run_that_cannot_begin_says_why(tmp_path: Path) -> None:
    settings = TrainerSettings(max_steps=3, device="cpu", precision="32")
    with pytest.raises(ValueError) as caught:
        fit(tuner(toy_model(), None, Optim()), ToyLoader(studies=4, size=8), tmp_path, settings)
    assert str(caught.value) == (
        "no training batch: fewer training studies than a batch; fix: a smaller data.batch_size"
    )
    toy_run(tmp_path / "run", max_steps=1, identity={"config": "a", "manifest": "b", "studies": "c"})
    with pytest.raises(CheckpointError) as differs:
        toy_run(tmp_path / "run", max_steps=1, identity={"manifest": "x", "studies": "c", "more": "d"})
    assert str(differs.value) == (
        "this run was begun with another config, manifest, more; fix: the old one, another --out, or --fresh to start over"
    )
    with pytest.raises(CheckpointError) as other:
        toy_run(
            tmp_path / "run",
            max_steps=1,
            identity={"config": "a", "manifest": "b", "studies": "c"},
            precision="bf16-mixed",
        )
    assert str(other.value) == (
        "this run was begun in precision 32, and here it would go on in bf16-mixed; fix: --precision 32, or --fresh to "
        "start over"
    )


def test_the_learner_is_told_of_the_run_and_ends_in_evaluation(tmp_path: Path) -> None:
    learner = tuner(toy_model(), None, Optim(lr=0.01))
    settings = TrainerSettings(
        max_steps=2, accumulate=2, limit_train_batches=3, bad_steps=7, ema=0.5, device="cpu", precision="32"
    )
    with torch.no_grad():
        fit(learner, ToyLoader(), tmp_path / "a" / "b", settings)
    assert (learner.accumulate, learner.per_epoch, learner.total, learner.bad_limit) == (2, 3, 2, 7)
    assert (learner.decay, learner.step, learner.batches) == (0.5, 2, 4)
    assert not learner.training and not learner.model.training and not learner.model.encoders["ct"].training
    one = TrainerSettings(max_steps=1, limit_train_batches=1, device="cpu", precision="32")
    assert fit(tuner(toy_model(), None, Optim()), ToyLoader(), tmp_path / "one", one).step == 1
