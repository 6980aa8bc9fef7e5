"""One pretraining, every task fine-tuned and probed, classical baselines, every subset of modalities: on any cohort.

    python pipelines/cohort_study.py --manifest cohort.csv --out runs/study --seeds 3

One model is pretrained per seed on the training studies, without labels. For each binary `label_*` column it is then
fine-tuned, and probed with its weights frozen; a classical baseline is fitted for each subset of modalities. All are
evaluated on the test studies of the manifest (and of `--test-manifest`). A task with few labelled test studies is also
cross-validated by subject over all labelled studies. Run again, it continues where it stopped.

Writes results.json ({task: {method: {subset: {"auroc": {estimate, ci_low, ci_high, n}}}}}), protocol.json, results.html.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

CONFIGS = Path(__file__).resolve().parent.parent / "configs"


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


@dataclass(frozen=True)
class Plan:
    """One fit and the studies that it answers for. name: of its folder. table: manifest whose test rows are answered."""

    task: str
    name: str
    table: Path
    cross_validated: bool


@dataclass(frozen=True)
class Study:
    """What all steps share."""

    out: Path
    root: Path
    manifest: Path
    config: Path
    finetune_config: Path
    threads: int

    @property
    def cache(self) -> Path:
        """Prepared studies, shared by all runs."""
        return self.out / "cache"


def main(
    *,
    manifest: Path,
    out: Path,
    test_manifest: Path | None = None,
    data_root: Path | None = None,
    seeds: int = 3,
    tasks: list[str] | None = None,
    config: Path = CONFIGS / "pretrain" / "cohort.yaml",
    finetune_config: Path = CONFIGS / "finetune" / "cohort.yaml",
    folds: int = 6,
    cross_validate_below: int = 20,
    bootstrap: int = 1000,
    threads: int = 0,
) -> None:
    """Runs the study.

    Args:
        manifest: the study table, with a split.
        out: folder of all runs and results.
        test_manifest: further studies; its test rows are answered too, all rows where it has no split.
        data_root: what the paths of the manifests are relative to; the folder of each by default.
        seeds: pretrainings, from seed 0 on.
        tasks: only these label columns, without `label_`.
        config: of the pretraining.
        finetune_config: of the fine-tuning.
        folds: of the cross-validation by subject.
        cross_validate_below: a task with fewer labelled test studies than this is also cross-validated.
        bootstrap: resamples of the subjects.
        threads: of torch; 0 = all cores.
    """
    import torch

    from medssml.files import write_json
    from medssml.privacy import pseudonyms
    from medssml.reports.comparison_page import write_study_page
    from medssml.runs import console

    torch.set_num_threads(threads or torch.get_num_threads())
    out = Path(out).resolve()
    table, further, root = merged_table(manifest, test_manifest, data_root)
    study = Study(out, root, Path(manifest), config, finetune_config, threads)
    chosen = [name for name in binary_tasks(table) if tasks is None or name in tasks]
    plans = [plan for task in chosen for plan in plans_of(study, table, task, further, folds, cross_validate_below)]
    # What the verbs answer goes by codes; the tables of this folder, which the verbs read, go by ids.
    ids = pseudonyms()
    coded = {ids.study(name) for name in further}
    answers: Answers = defaultdict(list)
    validation: Answers = defaultdict(list)
    for plan in plans:
        answers[plan.task, method("classical", plan)].append(classical_answers(study, plan))
    for seed in range(seeds):
        with console.step(f"seed {seed}: pretraining"):
            pretrained = pretrain_once(study, seed, data_root)
        for plan in plans:
            with console.step(f"seed {seed}: {plan.name}"):
                for name, answered in model_answers(study, plan, pretrained, seed).items():
                    answers[plan.task, method(name, plan)].append(answered)
                if can_choose(table, plan):
                    for name, answered in model_answers(study, plan, pretrained, seed, "val").items():
                        validation[plan.task, name].append(answered)
        picked = best_on_validation(validation)
        answered_by = dict(answers) | {(task, CHOSEN): answers[task, name] for task, name in picked.items()}
        results = tabulate(answered_by, further | coded, bootstrap)
        write_json(out / "results.json", results)
        protocol = protocol_of(study, table, seed + 1, folds, cross_validate_below, bootstrap)
        protocol |= {CHOSEN: CHOICE, "chosen": picked}
        write_json(out / "protocol.json", protocol)
        write_study_page(out / "results.html", results, protocol)
        console.say(f"{out / 'results.html'}: {seed + 1} of {seeds} seeds")


def method(name: str, plan: Plan) -> str:
    """Name of a method in results.json."""
    return f"{name} (cross-validated)" if plan.cross_validated else name


def merged_table(
    manifest: Path, test_manifest: Path | None, data_root: Path | None
) -> tuple[pd.DataFrame, set[str], Path]:
    """All studies in one table, paths relative to one root; the ids of the test manifest; the root."""
    import os

    from medssml.manifest.manifest import Manifest

    given = [Path(p).resolve() for p in (manifest, test_manifest) if p is not None]
    roots = [Path(data_root).resolve() if data_root is not None else path.parent for path in given]
    common = Path(os.path.commonpath(roots))
    frames: list[pd.DataFrame] = []
    further: set[str] = set()
    for position, (path, root) in enumerate(zip(given, roots, strict=True)):
        read = Manifest.read(path, root)
        frame = read.table.copy()
        if position == 1:
            held = np.array(read.splits) == "test" if read.official_split else np.ones(len(read), dtype=bool)
            frame = frame.loc[held if held.any() else slice(None)].assign(split="test")
            further |= set(map(str, frame["study_id"]))
        for column in set(read.modalities) & set(frame.columns):
            moved = [str((root / cell).relative_to(common)) if cell else "" for cell in frame[column].fillna("")]
            frame[column] = moved
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).fillna(""), further, common


def binary_tasks(table: pd.DataFrame) -> list[str]:
    """Tasks whose labels are 0 and 1, both of them among the training and among the test studies or overall."""
    names = [str(c).removeprefix("label_") for c in table.columns if str(c).startswith("label_")]
    return [
        name for name in names if set(table.loc[table[f"label_{name}"] != "", f"label_{name}"].astype(float)) == {0, 1}
    ]


def plans_of(study: Study, table: pd.DataFrame, task: str, further: set[str], folds: int, few: int) -> Iterator[Plan]:
    """The test split and, for a task with few labelled test studies, the folds of a cross-validation by subject."""
    from medssml.files import write_csv
    from medssml.statistics.comparison import subject_folds

    labelled = table.loc[table[f"label_{task}"] != ""]
    folder = study.out / "manifests"
    folder.mkdir(parents=True, exist_ok=True)

    def written(name: str, frame: pd.DataFrame) -> Path:
        path = folder / f"{name}.csv"
        return write_csv(path, frame, digits=None)

    yield Plan(task, task, written(task, labelled), cross_validated=False)
    own = labelled.loc[~labelled["study_id"].isin(further)]
    if (own["split"] == "test").sum() >= few:
        return
    fold_of = subject_folds(list(own["subject_id"]), list(own[f"label_{task}"].astype(float)), folds)
    for fold in range(folds):
        split = np.where(fold_of == fold, "test", "train")
        name = f"{task}_fold{fold}"
        yield Plan(task, name, written(name, own.assign(split=split)), cross_validated=True)


def once(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at `path`, made where it is not there yet."""
    from medssml.files import restored, write_csv

    if not path.exists():
        write_csv(path, make(), digits=None)
    return restored(pd.read_csv(path, dtype={"study_id": str, "subject": str, "subset": str}))


def pretrain_once(study: Study, seed: int, data_root: Path | None) -> Path:
    """The run folder of one pretraining on the training studies of the manifest."""
    from medssml.runs import console
    from medssml.verbs.pretrain import pretrain

    out = study.out / f"seed{seed}" / "pretrain"
    done = pretrain(
        config=study.config, manifest=study.manifest, out=out, seed=seed, cache=study.cache, data_root=data_root
    )
    console.stop_unless_done(done)
    return out


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


def model_answers(
    study: Study, plan: Plan, pretrained: Path, seed: int, split: str = "test"
) -> dict[str, pd.DataFrame]:
    """What the fine-tuned model and the probe of the frozen one say about the plan's studies of a split."""
    from medssml.files import restored
    from medssml.runs import console
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.finetune import finetune

    folder = study.out / f"seed{seed}"
    shared: dict[str, Any] = {"manifest": plan.table, "cache": study.cache, "data_root": study.root}

    asked: dict[str, Any] = {"task": [plan.task], "bootstrap": 50, "split": split, **shared}
    ending = "" if split == "test" else f"_{split}"

    def answered(checkpoint: Path, out: Path, probes: bool) -> pd.DataFrame:
        evaluate(checkpoint=str(checkpoint), out=out, probes=probes, **asked)
        return restored(pd.read_csv(out / "predictions.csv", dtype={"study_id": str}))

    def probed() -> pd.DataFrame:
        return answered(pretrained, folder / f"probe_{plan.name}{ending}", probes=True)

    def tuned() -> pd.DataFrame:
        run = folder / f"finetune_{plan.name}"
        start: dict[str, Any] = {"checkpoint": str(pretrained), "config": study.finetune_config, "track": False}
        console.stop_unless_done(finetune(out=run, task=[plan.task], seed=seed, **start, **shared))
        return answered(run, run / f"evaluation{ending}", probes=False)

    made = {"probe": probed, "finetune": tuned}
    return {
        name: once(folder / "answers" / f"{name}_{plan.name}{ending}.csv", make).assign(seed=seed)
        for name, make in made.items()
    }


def classical_answers(study: Study, plan: Plan) -> pd.DataFrame:
    """What a classical baseline says about the plan's test studies, one fit per subset of modalities."""
    return once(study.out / "classical" / f"{plan.name}.csv", lambda: _classical(study, plan)).assign(seed=0)


def _classical(study: Study, plan: Plan) -> pd.DataFrame:
    from medssml.evaluation.classical import ClassicalBaseline
    from medssml.evaluation.encoded_studies import subset_name, subsets
    from medssml.manifest.manifest import Manifest
    from medssml.privacy import pseudonyms
    from medssml.statistics.comparison import COLUMNS

    table = Manifest.read(plan.table, study.root, ids=pseudonyms())
    features = {m: classical_features(study, table, m) for m in table.modalities}
    y = np.asarray(table.targets[plan.task], dtype=np.float64)
    test, subject = np.array(table.splits) == "test", np.array(table.subject_ids)
    frames = []
    for mask in subsets(table.modalities)[1:]:
        names = [m for j, m in enumerate(table.modalities) if mask >> j & 1]
        having = np.array([all(features[m][i] is not None for m in names) for i in range(len(table))])
        fit, asked = having & ~test, having & test
        if len(set(y[fit])) < 2 or not asked.any():
            continue
        rows = {m: [features[m][i] for i in np.flatnonzero(fit)] for m in names}
        model = ClassicalBaseline().fit(rows, y[fit], list(subject[fit]))
        answer = model.predict({m: [features[m][i] for i in np.flatnonzero(asked)] for m in names})
        columns = {"study_id": table.study_codes[asked], "subject": table.subject_codes[asked], "y": y[asked]}
        frames.append(pd.DataFrame({**columns, "subset": subset_name(mask, table.modalities), "probability": answer}))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=list(COLUMNS))


def classical_features(study: Study, table: Any, modality: str) -> list[Any]:
    """Features of each study of a table; None where it has no such modality or its file cannot be used."""
    from medssml.evaluation.classical import read_features
    from medssml.readers.errors import ReadError

    def of(index: int) -> Any:
        source = table.source_of(index, modality)
        if source is None:
            return None
        key = str(source)
        if key not in _FEATURES:
            try:
                _FEATURES[key] = read_features(modality, source)
            except ReadError:
                _FEATURES[key] = None  # named in problems.csv of the runs
        return _FEATURES[key]

    return [of(index) for index in range(len(table))]


_FEATURES: dict[str, Any] = {}


def tabulate(answers: dict[tuple[str, str], list[pd.DataFrame]], further: set[str], bootstrap: int) -> dict[str, Any]:
    """{task: {method: {subset: ..}}}; what concerns `--test-manifest` has methods of its own, "... [test manifest]"."""
    from medssml.statistics.comparison import compare

    results: dict[str, dict[str, Any]] = {}
    for (task, name), tables in answers.items():
        some = [table for table in tables if len(table)]
        if not some:
            continue  # too few labels to fit anything
        whole = pd.concat(some, ignore_index=True)
        held = whole["study_id"].isin(further)
        for part, label in ((whole.loc[~held], name), (whole.loc[held], f"{name} [test manifest]")):
            if len(part):
                results.setdefault(task, {}).update(compare({label: [part]}, n=bootstrap))
    return results


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
        "finetune": f"all labelled training studies; {which_weights(finetuning['trainer'])}; no label of a test study",
        "probe": "logistic regression on the frozen embedding, its penalty chosen on validation or by inner folds",
        "classical": "intensity and size (CT), HOG (X-ray), band power (EEG), TF-IDF (report) and logistic regression, "
        "one per subset, its penalty chosen by cross-validation over training subjects; no seed",
        "cross-validated": f"{folds} folds over all labelled subjects where fewer than {few} test studies are labelled; "
        "the pretrained model has seen the training subjects among them, without labels",
        "interval": f"95 %, {bootstrap} resamples of subjects, and of the {seeds} seeds",
        "seeds": seeds,
    }


if __name__ == "__main__":
    from jsonargparse import auto_cli

    auto_cli(main, as_positional=False)
