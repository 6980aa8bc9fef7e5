"""What the answers of `medssml study cohort` come to: the choice on validation studies, the table, the protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssml.files import write_json
from medssml.privacy import pseudonyms
from medssml.reports.comparison_page import write_study_page
from medssml.studies.cohort_fits import Plan, Study, classical_answers, model_answers

#: (task, method) -> what it says, one table per fold and seed.
Answers = dict[tuple[str, str], list[pd.DataFrame]]

#: The better of the two ways to use the pretrained model, and how it is chosen.
CHOSEN = "chosen on validation"
CHOICE = (
    "per task, probe or fine-tuned model, by the mean AUROC over subsets and seeds on the validation studies; no test study "
    "is looked at; the probe's penalty may come from the same validation studies"
)
#: Validation studies of each class, at least, to choose by.
LEAST_TO_CHOOSE = 5


class Collected:
    """What all methods of a study have answered, and the results that it comes to.

    Args:
        further: ids of the studies of the test manifest.
    """

    def __init__(self, further: set[str]) -> None:
        # What the verbs answer goes by codes; the tables of the fits, which the verbs read, go by ids.
        self._further = further | {pseudonyms().study(name) for name in further}
        self._answers: Answers = defaultdict(list)
        self._validation: Answers = defaultdict(list)

    def ask_classical(self, study: Study, plan: Plan) -> None:
        """The classical baseline of a plan."""
        self._answers[plan.task, method("classical", plan)].append(classical_answers(study, plan))

    def ask_models(self, study: Study, plan: Plan, pretrained: Path, seed: int, table: pd.DataFrame) -> None:
        """The fine-tuned model and the probe, on validation studies too where there are enough to choose by."""
        for name, answered in model_answers(study, plan, pretrained, seed).items():
            self._answers[plan.task, method(name, plan)].append(answered)
        if can_choose(table, plan):
            for name, answered in model_answers(study, plan, pretrained, seed, "val").items():
                self._validation[plan.task, name].append(answered)

    def write(self, out: Path, protocol: Mapping[str, Any], bootstrap: int) -> None:
        """results.json, protocol.json and results.html."""
        picked = best_on_validation(self._validation)
        answers = dict(self._answers) | {(task, CHOSEN): self._answers[task, name] for task, name in picked.items()}
        results = tabulate(answers, self._further, bootstrap)
        told = {**protocol, CHOSEN: CHOICE, "chosen": picked}
        write_json(out / "results.json", results)
        write_json(out / "protocol.json", told)
        write_study_page(out / "results.html", results, told)


def method(name: str, plan: Plan) -> str:
    """Name of a method in results.json."""
    return f"{name} (cross-validated)" if plan.cross_validated else name


def can_choose(table: pd.DataFrame, plan: Plan) -> bool:
    """Whether the plan has validation studies, and enough of both classes."""
    label = table.loc[table["split"] == "val", f"label_{plan.task}"]
    counts = label[label != ""].astype(float).value_counts()
    return not plan.cross_validated and len(counts) == 2 and int(counts.min()) >= LEAST_TO_CHOOSE


def best_on_validation(validation: Answers) -> dict[str, str]:
    """Task -> the method with the highest AUROC on validation studies, the mean over subsets and seeds."""
    from medssml.statistics.comparison import compare

    best: dict[str, tuple[float, str]] = {}
    for (task, name), tables in validation.items():
        found = compare({name: tables}, n=10)[name].values()
        if found:
            mean = float(np.mean([entry["auroc"]["estimate"] for entry in found]))
            best[task] = max(best.get(task, (0.0, name)), (mean, name))
    return {task: name for task, (_, name) in best.items()}


def tabulate(answers: dict[tuple[str, str], list[pd.DataFrame]], further: set[str], bootstrap: int) -> dict[str, Any]:
    """{task: {method: {subset: ..}}}; what concerns `--test-manifest` has methods of its own, "... [test manifest]"."""
    from medssml.statistics.comparison import compare

    results: dict[str, dict[str, Any]] = {}
    parts: dict[str, dict[str, pd.DataFrame]] = {}
    for (task, name), tables in answers.items():
        some = [table for table in tables if len(table)]
        if not some:
            continue  # too few labels to fit anything
        whole = pd.concat(some, ignore_index=True)
        held = whole["study_id"].isin(further)
        for part, label in ((whole.loc[~held], name), (whole.loc[held], f"{name} [test manifest]")):
            if len(part):
                results.setdefault(task, {}).update(compare({label: [part]}, n=bootstrap))
                parts.setdefault(task, {})[label] = part
    for task, seen in parts.items():
        _add_gains(results[task], seen, bootstrap)
    return results


def _add_gains(methods: dict[str, Any], tables: Mapping[str, pd.DataFrame], bootstrap: int) -> None:
    """What each method adds to the classical baseline that was asked about the same studies, beside its AUROC."""
    from medssml.statistics.comparison import gains

    for label, table in tables.items():
        name = label.split(" (cross-validated)")[0].split(" [test manifest]")[0]
        against = label.replace(name, "classical", 1)
        if against in tables and against != label:
            found = gains({against: tables[against], label: table}, against, n=bootstrap)[label]
            for subset, gain in found.items():
                methods[label].get(subset, {})["gain"] = {**gain, "against": against}


def protocol_of(study: Study, table: pd.DataFrame, seeds: int, folds: int, few: int, bootstrap: int) -> dict[str, Any]:
    """What the numbers are: printed beside them."""
    import medssml
    from medssml.config import load_config
    from medssml.files import sha256_of
    from medssml.runs.training_config import FinetuneConfig
    from medssml.verbs.finetune import which_weights

    finetuning = load_config(study.finetune_config, FinetuneConfig)
    return {
        "medssml": medssml.__version__,
        "manifest_sha256": sha256_of(study.manifest),
        "studies": {split or "none": int(count) for split, count in table["split"].value_counts().items()},
        "pretraining": "training studies, no labels, one model for all tasks; configs: "
        f"{study.config.name}, {study.finetune_config.name}",
        "finetune": f"all labelled training studies; {which_weights(finetuning.trainer)}; no label of a test study",
        "probe": "logistic regression on the frozen embedding, its penalty chosen on validation or by inner folds",
        "classical": "intensity and size (CT), HOG (X-ray), band power (EEG), TF-IDF (report) and logistic regression, "
        "one per subset, its penalty chosen by cross-validation over training subjects; no seed",
        "cross-validated": f"{folds} folds over all labelled subjects where fewer than {few} test studies are labelled; "
        "the pretrained model has seen the training subjects among them, without labels",
        "interval": f"95 %, {bootstrap} resamples of subjects, and of the {seeds} seeds",
        "seeds": seeds,
    }
