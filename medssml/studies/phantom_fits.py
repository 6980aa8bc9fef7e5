"""The parts of `medssml study phantom`: the models of one seed, and what they answer. What is done is not done again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

#: What is trained from scratch has nothing to keep: its encoders learn at the full rate.
RAW = ("optim.lr=1e-3", "optim.scales={}", "probe_first=false")
#: All labels are ten times as many: a longer course at the usual rate.
ALL = ("trainer.max_steps=600", "optim.lr=1e-3", "evidence=false")


@dataclass(frozen=True)
class Design:
    """What the seeds share.

    Args:
        cache: prepared studies.
        studies: of each cohort. missing: share of absent modalities.
        labels: share of the labelled training subjects that fine-tuning and training from scratch see.
        config, finetune_config: of the pretraining and the fine-tuning.
        device: of training; None = what the configs say.
    """

    cache: Path
    studies: int
    labels: float
    missing: float
    config: Path
    finetune_config: Path
    device: str | None = None

    @classmethod
    def of(
        cls,
        cache: Path,
        studies: int,
        labels: float,
        missing: float,
        config: Path,
        finetune_config: Path,
        device: str | None,
    ) -> Design:
        """With the files of the configs, which may be named as shipped ones are."""
        from medssml.shipped_configs import config_path

        config, finetune_config = config_path(config, "pretrain"), config_path(finetune_config, "finetune")
        return cls(cache, studies, labels, missing, config, finetune_config, device)

    def settings(self) -> dict[str, Any]:
        """What the answers of the study depend on.

        Raises:
            medssml.config.ConfigError: a wrong config.
        """
        from medssml.config import load_config
        from medssml.runs.training_config import FinetuneConfig, PretrainConfig
        from medssml.schema import plain

        return {
            "studies": self.studies,
            "labels": self.labels,
            "missing": self.missing,
            "pretraining": plain(load_config(self.config, PretrainConfig)),
            "finetuning": plain(load_config(self.finetune_config, FinetuneConfig)),
        }


def one_seed(folder: Path, seed: int, design: Design, *, all_labels: bool) -> dict[str, pd.DataFrame]:
    """Method -> its answers, one row per test study, task and subset; "bayes" among them."""
    from medssml.studies.resume import unless_stopped
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.finetune import finetune
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    cohort = folder / "cohort"
    manifest = cohort / "manifest.csv"
    if not manifest.exists():
        phantom(out=cohort, studies=design.studies, seed=seed, missing=design.missing)
    read: dict[str, Any] = {"manifest": manifest, "cache": design.cache}
    shared = read | {"seed": seed, "track": False, "device": design.device}
    pretrained = folder / "pretrain"
    unless_stopped(f"seed {seed}: pretraining", pretrain(config=design.config, out=pretrained, **shared))
    starts: dict[str, dict[str, Any]] = {
        "finetune": {"checkpoint": str(pretrained), "labels": design.labels},
        "scratch": {
            "checkpoint": "none", "architecture": design.config, "labels": design.labels, "overrides": RAW,
        },
    }  # fmt: skip
    if all_labels:
        starts["finetune, all labels"] = {"checkpoint": str(pretrained), "labels": 1.0, "overrides": ALL}
    tables = {}
    for name, start in starts.items():
        run = folder / name.replace(", ", "_").replace(" ", "_")
        done = finetune(task=["all"], out=run, config=design.finetune_config, **start, **shared)
        unless_stopped(f"seed {seed}: {name}", done)
        if not (run / "evaluation" / "predictions.csv").exists():
            out = run / "evaluation"
            evaluate(checkpoint=str(run), out=out, probes=False, device=design.device or "auto", **read)
        tables[name] = read_answers(run / "evaluation" / "predictions.csv", seed)
    tables["bayes"] = bayes_answers(cohort / "truth.csv", tables["finetune"])
    return tables


def read_answers(path: Path, seed: int) -> pd.DataFrame:
    """predictions.csv; studies and subjects of different cohorts are different people."""
    from medssml.files import restored

    table = restored(pd.read_csv(path, dtype={"study_id": str, "subset": str})).fillna({"subset": ""})
    return table.assign(
        cohort=seed, study_id=f"{seed}/" + table["study_id"], subject=f"{seed}/" + table["subject"].astype(str), seed=0
    )


def bayes_answers(truth: Path, like: pd.DataFrame) -> pd.DataFrame:
    """The same rows with the probability that the causal model gives."""
    from medssml.evaluation.bayes import bayes_column, read_truth

    known = read_truth(truth)
    known.index = known.index.astype(str)
    rows = like["study_id"].str.split("/").str[1]
    found = [known.at[s, bayes_column(t, u)] for s, t, u in zip(rows, like["task"], like["subset"], strict=True)]
    return like.assign(probability=np.array(found, dtype=np.float64))


def measure_impact(folder: Path, design: Design) -> None:
    """impact.json of every task of the model that was fine-tuned on all labels."""
    from medssml.manifest.manifest import Manifest
    from medssml.verbs.impact import impact

    manifest = folder / "cohort" / "manifest.csv"
    run = folder / "finetune_all_labels"
    for task in Manifest.read(manifest).tasks:
        target = run / "impact" / task
        if not (target / "impact.json").exists():
            shared: dict[str, Any] = {"cache": design.cache, "device": design.device or "auto"}
            impact(checkpoint=[str(run)], manifest=manifest, task=task, out=target, **shared)


def impact_table(out: Path, seeds: int) -> dict[str, Any]:
    """What impact.json says of the true Shapley values, for every seed and task."""
    import json

    found: dict[str, Any] = {}
    for seed in range(seeds):
        for path in sorted((out / f"seed{seed}" / "finetune_all_labels" / "impact").glob("*/impact.json")):
            found.setdefault(f"seed{seed}", {})[path.parent.name] = json.loads(path.read_text()).get("truth")
    return found
