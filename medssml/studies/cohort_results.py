"""What the answers of `medssml study cohort` come to: the choice on validation studies, the table, the protocol."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from medssml.files import write_json
from medssml.privacy import pseudonyms
from medssml.reports.comparison_page import write_study_page
from medssml.studies.cohort_choice import CHOICE, CHOSEN, Answers, best, judged, mean_auroc
from medssml.studies.cohort_fits import Plan, Study, classical_answers, model_answers


class Collected:
    """What all methods of a study have answered, and the results that it comes to.

    Args:
        further: ids of the studies of the test manifest.
        by: task -> what the choice of the way to use the model stands on, as `chosen_by` says.
    """

    def __init__(self, further: set[str], by: Mapping[str, str]) -> None:
        # What the verbs answer goes by codes; the tables of the fits, which the verbs read, go by ids.
        self._further = further | {pseudonyms().study(name) for name in further}
        self._by = dict(by)
        self._answers: defaultdict[tuple[str, str], list[pd.DataFrame]] = defaultdict(list)
        self._choosing: defaultdict[tuple[str, str], list[pd.DataFrame]] = defaultdict(list)

    def ask_classical(self, study: Study, plan: Plan) -> None:
        """The classical baseline of a plan."""
        self._keep(plan, "classical", classical_answers(study, plan))

    def ask_models(self, study: Study, plan: Plan, pretrained: Path, seed: int) -> None:
        """The fine-tuned model and the probe, on validation studies too where these choose."""
        for name, answered in model_answers(study, plan, pretrained, seed).items():
            self._keep(plan, name, answered)
        if plan.use == "test" and self._by[plan.task] == "validation":
            for name, answered in model_answers(study, plan, pretrained, seed, "val").items():
                self._choosing[plan.task, name].append(answered)

    def _keep(self, plan: Plan, name: str, answered: pd.DataFrame) -> None:
        if plan.use == "choice":
            self._choosing[plan.task, name].append(answered.assign(cohort=plan.fold))
        else:
            self._answers[plan.task, method(name, plan)].append(answered)

    def write(self, out: Path, protocol: Mapping[str, Any], bootstrap: int) -> None:
        """results.json, choice.json, protocol.json and results.html."""
        choice = judged(self._choosing, bootstrap)
        picked = best(choice)
        answers = dict(self._answers) | {(task, CHOSEN): self._answers[task, name] for task, name in picked.items()}
        results = tabulate(answers, self._further, bootstrap)
        said = {task: _how(by, picked.get(task), choice.get(task, {})) for task, by in self._by.items()}
        told = {**protocol, CHOSEN: CHOICE, "chosen": picked, "chosen by": said}
        write_json(out / "results.json", results)
        write_json(out / "choice.json", choice)
        write_json(out / "protocol.json", told)
        write_study_page(out / "results.html", results, told, CHOSEN)


def _how(by: str, picked: str | None, methods: Mapping[str, Any]) -> str:
    """The choice in words: what each of the ways comes to, the chosen one first; or why there is none."""
    if picked is None:
        return "nothing: too few labels to choose by"
    means = {name: f"{mean_auroc(subsets):.3f}" for name, subsets in methods.items() if subsets}
    others = [f"{name} {mean}" for name, mean in means.items() if name != picked]
    return f"{by}: {picked} {means[picked]}" + (f" ({', '.join(others)})" if others else "")


def method(name: str, plan: Plan) -> str:
    """Name of a method in results.json."""
    return f"{name} (cross-validated)" if plan.use == "folds" else name


def tabulate(answers: Answers, further: set[str], bootstrap: int) -> dict[str, Any]:
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


def protocol_of(
    study: Study, table: pd.DataFrame, seeds: int, folds: int, few: int, bootstrap: int, whole: Sequence[str]
) -> dict[str, Any]:
    """What the numbers are: printed beside them. whole: tasks that are learned from validation studies, too."""
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
        "finetune": f"all labelled training studies{_as_well(whole)}; {which_weights(finetuning.trainer)}; "
        "no label of a test study",
        "probe": "logistic regression on the frozen embedding, its penalty chosen on validation or by inner folds",
        "classical": "intensity and size (CT), HOG (X-ray), band power (EEG), TF-IDF (report) and logistic regression, "
        "one per subset, its penalty chosen by cross-validation over training subjects; no seed",
        "cross-validated": f"{folds} folds over all labelled subjects where fewer than {few} test studies are labelled; "
        "the pretrained model has seen the training subjects among them, without labels",
        "interval": f"95 %, {bootstrap} resamples of subjects, and of the {seeds} seeds",
        "seeds": seeds,
    }


def _as_well(whole: Sequence[str]) -> str:
    return f", and for {', '.join(whole)} those of validation, which choose nothing there" if whole else ""
