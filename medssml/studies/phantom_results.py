"""What the answers of `medssml study phantom` come to: AUROC, the gain over scratch, the gap to Bayes, the loss beyond Bayes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssml.files import write_json
from medssml.reports.comparison_page import write_study_page
from medssml.studies.phantom_fits import Design, impact_table

#: Label -> (method, method): the AUROC of the first minus that of the second.
DIFFERENCES = {
    "gain over scratch": ("finetune", "scratch"),
    "gap to bayes": ("bayes", "finetune"),
    "gap to bayes, all labels": ("bayes", "finetune, all labels"),
}


class Collected:
    """What all methods of a study have answered, and the results that it comes to.

    Args:
        bootstrap: resamples of subjects.
    """

    def __init__(self, bootstrap: int) -> None:
        self._bootstrap = bootstrap
        self._answers: dict[tuple[str, str], list[pd.DataFrame]] = defaultdict(list)

    def add(self, tables: Mapping[str, pd.DataFrame]) -> None:
        """The answers of one seed, by method."""
        for name, table in tables.items():
            for task, part in table.groupby("task"):
                self._answers[str(task), name].append(part)

    def write(self, out: Path, design: Design, *, seeds: int, impact: bool) -> None:
        """results.json, protocol.json and results.html."""
        results = tabulate(self._answers, self._bootstrap)
        protocol = protocol_of(design, seeds, self._bootstrap)
        write_json(out / "results.json", results | ({"impact": impact_table(out, seeds)} if impact else {}))
        write_json(out / "protocol.json", protocol)
        write_study_page(out / "results.html", {task: shown(entry) for task, entry in results.items()}, protocol)


def shown(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The methods of a task for the page: scratch first, and what fine-tuning adds to it."""
    gains = entry.get("gain over scratch", {})
    methods = {
        name: {
            s: found | ({"gain": gains[s]} if name == "finetune" and s in gains else {}) for s, found in parts.items()
        }
        for name, parts in entry["methods"].items()
    }
    return {name: methods[name] for name in sorted(methods, key=lambda name: name != "scratch")}


def protocol_of(design: Design, seeds: int, bootstrap: int) -> dict[str, Any]:
    """What the numbers are: printed beside them."""
    from medssml.config import load_config
    from medssml.runs.training_config import FinetuneConfig
    from medssml.verbs.finetune import which_weights

    weights = which_weights(load_config(design.finetune_config, FinetuneConfig).trainer)
    return {
        "cohorts": f"{seeds} of {design.studies} studies, one per seed, {design.missing:.0%} of the modalities absent at "
        "random",
        "pretraining": f"training studies, no labels; {design.config.name}",
        "finetune, scratch": f"{design.labels:.0%} of the labelled training subjects, the same for both; "
        f"{design.finetune_config.name}; {weights}",
        "bayes": "the best that anyone can do from the same modalities of the same studies, from the causal model",
        "interval": f"95 %, {bootstrap} resamples of subjects",
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
