"""A fine-tuning by another fusion than that of the pretraining: what is kept, what is written, killed and gone on with."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from medssml.config import ConfigError
from medssml.verbs.finetune import finetune

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
IMPUTING = "fusion.class_path=RegressionImputation"
SMIL = ["fusion.class_path=PriorImputation", "objectives=[{class_path: SMIL}]"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def pretrained(cohort: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from medssml.verbs.pretrain import pretrain

    out = tmp_path_factory.mktemp("runs") / "pretrain"
    pretrain(
        config=SMOKE / "pretrain.yaml", manifest=cohort, out=out, cache=cache, track=False,
        overrides=["trainer.max_steps=2", "trainer.validate_every=0"],
    )  # fmt: skip
    return out


def tuned(cohort: Path, out: Path, cache: Path, pretrained: Path, *overrides: str, **options: Any) -> Path:
    finetune(
        checkpoint=str(pretrained), config=SMOKE / "finetune.yaml", manifest=cohort, out=out, cache=cache, track=False,
        task=["effusion"], overrides=["trainer.save_every_steps=1", *overrides], **options,
    )  # fmt: skip
    return out


def weights(run: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(run / "model" / "model.safetensors")  # type: ignore[no-any-return]


def test_encoders_are_kept_heads_begin_as_a_probe_of_what_is_filled_in_and_the_run_says_so(
    cohort: Path, cache: Path, pretrained: Path, tmp_path: Path
) -> None:
    from medssml.predictor import load

    still = ["optim.lr=1e-30", "optim.weight_decay=0", "probe_first=true", "evidence=true"]
    run = tuned(cohort, tmp_path / "run", cache, pretrained, IMPUTING, *still)
    before, after = weights(pretrained), weights(run)
    for name, value in before.items():
        if name.startswith(("encoders.", "project.")):
            assert np.array_equal(value, after[name])
        if name.startswith("fusion."):
            assert np.array_equal(value, after[f"fusion.{name}"]), "the one inside goes on from its weights"
    assert int(after["fusion.studies"]) > 0
    # At a learning rate of nothing the head is the probe: the one of vectors with what is filled in.
    plain = weights(tuned(cohort, tmp_path / "plain", cache, pretrained, *still))
    probe = "heads.effusion.linear.weight"
    assert float(after[probe].abs().max()) > 0 and float((after[probe] - plain[probe]).abs().max()) > 1e-4

    said = "RegressionImputation around MaskedAttention in the place of MaskedAttention"
    assert said in (run / "log.txt").read_text() and said in (run / "model" / "README.md").read_text()
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["fusion"]["class_path"] == "RegressionImputation"
    model = load(run)
    assert model.tasks == ("effusion",) and type(model.model.fusion).__name__ == "RegressionImputation"


@pytest.mark.parametrize("remedy", [[IMPUTING], SMIL], ids=["imputation", "SMIL"])
def test_killed_and_gone_on_with_it_ends_with_the_same_bits(
    remedy: list[str], cohort: Path, cache: Path, pretrained: Path, tmp_path: Path
) -> None:
    """What is fitted is fitted before each epoch; a run that goes on within one has what was fitted at its beginning."""
    from medssml.data.loader import TrainLoader

    if "fork" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system cannot fork")
    settings = [*remedy, "data.batch_size=4", "trainer.max_epochs=2", "trainer.validate_every=0"]
    whole = weights(tuned(cohort, tmp_path / "whole", cache, pretrained, *settings))

    def killed() -> None:
        take = TrainLoader.take

        def dying(self: TrainLoader) -> Any:
            if self.step == len(self) + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return take(self)

        TrainLoader.take = dying  # type: ignore[method-assign]
        tuned(cohort, tmp_path / "parts", cache, pretrained, *settings)

    process = multiprocessing.get_context("fork").Process(target=killed)
    process.start()
    process.join(timeout=120)
    assert whole["fusion.studies" if remedy == [IMPUTING] else "fusion.centres"].any()
    assert process.exitcode == -signal.SIGKILL and not (tmp_path / "parts" / "model").exists()
    parts = weights(tuned(cohort, tmp_path / "parts", cache, pretrained, *settings))
    assert whole.keys() == parts.keys() and all(np.array_equal(value, parts[name]) for name, value in whole.items())


def test_labels_of_the_test_choose_nothing_and_those_of_the_validation_do(
    cohort: Path, cache: Path, pretrained: Path, tmp_path: Path
) -> None:
    """The published script of SMIL kept the weights that were best on the test studies."""
    import pandas as pd

    table = pd.read_csv(cohort, dtype=str, keep_default_na=False)
    table["subject_id"], table["split"] = table["study_id"], ["train"] * 8 + ["val"] * 12 + ["test"] * 4
    # Of the validation, the first epoch is the better one under one set of labels, and a later one under the other.
    runs = {}
    for name, turned in (("as they are", ""), ("of the test", "test"), ("of the validation", "val")):
        labels = table["label_effusion"].where(
            table["split"] != turned, table["label_effusion"].map({"0": "1", "1": "0"})
        )
        path = tmp_path / f"{turned or 'plain'}.csv"
        table.assign(label_effusion=labels.fillna("")).to_csv(path, index=False)
        settings = [*SMIL, "trainer.max_epochs=4", "optim.lr=0.001", "data.batch_size=4"]
        runs[name] = tuned(path, tmp_path / f"run {turned}", cache, pretrained, *settings, data_root=cohort.parent)
    plain, test, val = (weights(run) for run in runs.values())
    assert all(np.array_equal(value, test[name]) for name, value in plain.items())
    assert any(not np.array_equal(value, val[name]) for name, value in plain.items())


def test_what_this_checkpoint_cannot_have_is_refused_before_anything_is_written(
    cohort: Path, cache: Path, pretrained: Path, tmp_path: Path
) -> None:
    from medssml.verbs.transfer import transfer

    for wrong, words in (
        (["fusion.class_path=ConcatFusion", "fusion.init_args.dim=7"], "in width 7, and the model gives .*fix"),
        ([IMPUTING, "fusion.init_args.shrinkage=0.0"], "'fusion'.*shrinkage is 0.0; fix"),
        ([IMPUTING, "freeze=all_but_heads"], "keeps the fusion as it is.*fix"),
    ):
        with pytest.raises((ValueError, ConfigError), match=words):
            tuned(cohort, tmp_path / "run", cache, pretrained, *wrong)
    with pytest.raises(ValueError, match="a student reads one modality.*fix: leave fusion out"):
        transfer(
            teacher=pretrained, student="xray", manifest=cohort, task=["effusion"], out=tmp_path / "run", cache=cache,
            config="transfer", overrides=[IMPUTING],
        )  # fmt: skip
    assert not (tmp_path / "run").exists()
