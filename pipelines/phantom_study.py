"""What pretraining is worth where the truth is known: simulated cohorts, several seeds, the distance to Bayes.

    python pipelines/phantom_study.py --out runs/phantom_study --seeds 3

For each seed a cohort is simulated, a model pretrained on its training studies without labels, and fine-tuned on a part of
the labels; the same model is trained from scratch on the same labels. A third model is fine-tuned on all labels, for the
impact of each modality against the true Shapley values. Run again, it continues where it stopped.

Writes results.json, protocol.json and results.html.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
#: What is trained from scratch has nothing to keep: its encoders learn at the full rate.
RAW = ("optim.lr=1e-3", "optim.scales={}", "probe_first=false")
#: All labels are ten times as many: a longer course at the usual rate.
ALL = ("trainer.max_steps=600", "optim.lr=1e-3", "evidence=false")


def main(
    *,
    out: Path,
    seeds: int = 3,
    studies: int = 2400,
    labels: float = 0.1,
    missing: float = 0.3,
    config: Path = CONFIGS / "pretrain" / "phantom.yaml",
    finetune_config: Path = CONFIGS / "finetune" / "phantom.yaml",
    impact: bool = True,
    bootstrap: int = 1000,
    threads: int = 0,
) -> None:
    """Runs the study.

    Args:
        out: folder of all runs and results.
        seeds: cohorts and pretrainings, from seed 0 on.
        studies: of each cohort.
        labels: share of the labelled training subjects that fine-tuning and training from scratch see.
        missing: share of absent modalities.
        config: of the pretraining. finetune_config: of the fine-tuning.
        impact: also fine-tune on all labels and compare each modality's impact with the truth.
        bootstrap: resamples of the subjects.
        threads: of torch; 0 = all cores.
    """
    import torch

    from medssml.config import load_config
    from medssml.files import write_json
    from medssml.reports.comparison_page import write_study_page
    from medssml.runs import console
    from medssml.runs.training_config import FinetuneConfig
    from medssml.verbs.finetune import which_weights

    torch.set_num_threads(threads or torch.get_num_threads())
    out = Path(out).resolve()
    answers: dict[tuple[str, str], list[pd.DataFrame]] = defaultdict(list)
    for seed in range(seeds):
        with console.step(f"seed {seed}"):
            shared = (seed, studies, labels, missing, config, finetune_config)
            for name, table in one_seed(out / f"seed{seed}", *shared, all_labels=impact).items():
                for task, part in table.groupby("task"):
                    answers[str(task), name].append(part)
        if impact:
            measure_impact(out / f"seed{seed}")
        results = tabulate(answers, bootstrap)
        protocol = {
            "cohorts": f"{seed + 1} of {studies} studies, one per seed, {missing:.0%} of the modalities absent at random",
            "pretraining": f"training studies, no labels; {config.name}",
            "finetune, scratch": f"{labels:.0%} of the labelled training subjects, the same for both; {finetune_config.name}; "
            f"{which_weights(load_config(finetune_config, FinetuneConfig)['trainer'])}",
            "bayes": "the best that anyone can do from the same modalities of the same studies, from the causal model",
            "interval": f"95 %, {bootstrap} resamples of subjects",
        }
        write_json(out / "results.json", results | ({"impact": impact_table(out, seed + 1)} if impact else {}))
        write_json(out / "protocol.json", protocol)
        write_study_page(out / "results.html", {task: entry["methods"] for task, entry in results.items()}, protocol)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")


def one_seed(
    folder: Path,
    seed: int,
    studies: int,
    labels: float,
    missing: float,
    config: Path,
    finetune_config: Path,
    *,
    all_labels: bool,
) -> dict[str, pd.DataFrame]:
    """Method -> its answers, one row per test study, task and subset; "bayes" among them."""
    from medssml.runs import console
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.finetune import finetune
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    cohort = folder / "cohort"
    manifest = cohort / "manifest.csv"
    if not manifest.exists():
        phantom(out=cohort, studies=studies, seed=seed, missing=missing)
    shared: dict[str, Any] = {"manifest": manifest, "cache": folder / "cache", "seed": seed, "track": False}
    pretrained = folder / "pretrain"
    console.stop_unless_done(pretrain(config=config, out=pretrained, **shared))
    starts: dict[str, dict[str, Any]] = {
        "finetune": {"checkpoint": str(pretrained), "labels": labels},
        "scratch": {"checkpoint": "none", "architecture": config, "labels": labels, "overrides": RAW},
    }
    if all_labels:
        starts["finetune, all labels"] = {"checkpoint": str(pretrained), "labels": 1.0, "overrides": ALL}
    tables = {}
    for name, start in starts.items():
        run = folder / name.replace(", ", "_").replace(" ", "_")
        console.stop_unless_done(finetune(task=["all"], out=run, config=finetune_config, **start, **shared))
        if not (run / "evaluation" / "predictions.csv").exists():
            evaluate(
                checkpoint=str(run),
                manifest=manifest,
                out=run / "evaluation",
                probes=False,
                cache=folder / "cache",
            )
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


#: Label -> (method, method): the AUROC of the first minus that of the second.
DIFFERENCES = {
    "gain over scratch": ("finetune", "scratch"),
    "gap to bayes": ("bayes", "finetune"),
    "gap to bayes, all labels": ("bayes", "finetune, all labels"),
}


def tabulate(answers: dict[tuple[str, str], list[pd.DataFrame]], bootstrap: int) -> dict[str, Any]:
    """Per task: AUROC of every method and subset, "as observed" among them; the gain over scratch and the gap to Bayes;
    how much more than Bayes the fine-tuned model loses as modalities are taken from studies that have all."""
    from medssml.statistics.comparison import compare

    results: dict[str, Any] = {}
    for task in dict.fromkeys(task for task, _ in answers):
        tables = {name: pd.concat(parts) for (of, name), parts in answers.items() if of == task}
        tables = {name: pd.concat([table, as_observed(table)]) for name, table in tables.items()}
        entry: dict[str, Any] = {"methods": compare({n: [t] for n, t in tables.items()}, n=bootstrap)}
        for label, (first, second) in DIFFERENCES.items():
            if {first, second} <= set(tables):
                entry[label] = differences(tables[first], tables[second], bootstrap)
        if {"finetune", "bayes"} <= set(tables):
            entry["loss beyond bayes"] = losses(complete(tables["finetune"]), complete(tables["bayes"]), bootstrap)
        results[task] = entry
    return results


def differences(first: pd.DataFrame, second: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    """Subset -> AUROC of the first minus that of the second, on the same studies."""
    from medssml.statistics.bootstrap import paired_bootstrap
    from medssml.statistics.metrics import auroc, averaged

    found = {}
    for subset, part in first.groupby("subset"):
        other = second.loc[second["subset"] == subset].set_index("study_id")
        y = part["y"].to_numpy(dtype=float)
        if subset == "" or len(set(y)) < 2:
            continue
        scores = part["probability"].to_numpy(), other.loc[part["study_id"], "probability"].to_numpy()
        metric, subjects = averaged(auroc, part["cohort"].to_numpy()), part["subject"].to_numpy()
        found[str(subset)] = paired_bootstrap(metric, y, *scores, subjects, n=bootstrap).to_dict()
    return found


def complete(table: pd.DataFrame) -> pd.DataFrame:
    """(study, subset) probabilities of the studies that have every modality, with their columns y, subject and cohort."""
    rows = table.loc[(table["subset"] != "") & (table["subset"] != "as observed")]
    whole = max(rows["subset"], key=lambda name: name.count("+"))
    known = rows.loc[rows["subset"] == whole].set_index("study_id")[["y", "subject", "cohort"]]
    return known.join(rows.pivot(index="study_id", columns="subset", values="probability"))


def losses(model: pd.DataFrame, bayes: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    """Subset -> what the model loses of its AUROC when only this subset is left, minus what Bayes loses."""
    from medssml.statistics.bootstrap import intervals
    from medssml.statistics.metrics import auroc, averaged

    names = [name for name in model.columns if name not in ("y", "subject", "cohort")]
    whole = max(names, key=lambda name: name.count("+"))
    y, bayes = model["y"].to_numpy(dtype=float), bayes.loc[model.index]
    if len(set(y)) < 2:
        return {}
    metric = averaged(auroc, model["cohort"].to_numpy())

    def lost(weights: Any) -> Any:
        def fallen(table: pd.DataFrame) -> Any:
            left = [metric(y, table[name].to_numpy(), weights) for name in names]
            return metric(y, table[whole].to_numpy(), weights)[:, None] - np.stack(left, axis=1)

        return fallen(model) - fallen(bayes)

    found = intervals(lost, model["subject"].to_numpy(), n=bootstrap)
    return {name: interval.to_dict() for name, interval in zip(names, found, strict=True) if name != whole}


def as_observed(table: pd.DataFrame) -> pd.DataFrame:
    """The rows in which each study is answered from all that it has."""
    size = table["subset"].map(lambda name: len(name.split("+")) if name else 0)
    most = table.assign(size=size).sort_values("size").drop_duplicates("study_id", keep="last").drop(columns="size")
    return most.loc[most["subset"] != ""].assign(subset="as observed")


def measure_impact(folder: Path) -> None:
    """impact.json of every task of the model that was fine-tuned on all labels."""
    from medssml.manifest.manifest import Manifest
    from medssml.verbs.impact import impact

    manifest = folder / "cohort" / "manifest.csv"
    run = folder / "finetune_all_labels"
    for task in Manifest.read(manifest).tasks:
        target = run / "impact" / task
        if not (target / "impact.json").exists():
            impact(checkpoint=[str(run)], manifest=manifest, task=task, out=target, cache=folder / "cache")


def impact_table(out: Path, seeds: int) -> dict[str, Any]:
    """What impact.json says of the true Shapley values, for every seed and task."""
    import json

    found: dict[str, Any] = {}
    for seed in range(seeds):
        for path in sorted((out / f"seed{seed}" / "finetune_all_labels" / "impact").glob("*/impact.json")):
            found.setdefault(f"seed{seed}", {})[path.parent.name] = json.loads(path.read_text()).get("truth")
    return found


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
