"""The parts of `medssml study cohort`: which fits there are, and what each of them answers. What is done is not done again."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

#: Ending of the name of a fit that learns from validation studies as well.
WHOLE = "_with_validation"


@dataclass(frozen=True)
class Plan:
    """One fit and the studies that it answers for.

    Args:
        task: the label.
        name: of its folder.
        table: manifest whose test rows are answered.
        use: of the answers: those of the test split, of folds over all labelled subjects, or of folds to choose by.
        fold: which one of them.
    """

    task: str
    name: str
    table: Path
    use: Literal["test", "folds", "choice"]
    fold: int = 0


@dataclass(frozen=True)
class Study:
    """What all steps share.

    Args:
        out: folder of all runs and results.
        cache: prepared studies, shared by all runs, and the tables of the fits, which hold what the manifest holds.
        manifest, test_manifest: the study tables.
        roots: what the paths of each of them are relative to.
        config, finetune_config: of the pretraining and the fine-tuning.
        device: of training; None = what the configs say.
    """

    out: Path
    cache: Path
    manifest: Path
    test_manifest: Path | None
    roots: tuple[Path, ...]
    config: Path
    finetune_config: Path
    device: str | None = None

    @property
    def root(self) -> Path:
        """What the paths in the tables of the fits are relative to."""
        return Path(os.path.commonpath(self.roots))

    @property
    def tables(self) -> Path:
        """Where the tables of the fits lie: the same for the same manifests, and no part of the results."""
        identity = [str(self.root), *self.settings()["manifests"]]
        return self.cache / "tables" / hashlib.blake2b(json.dumps(identity).encode(), digest_size=8).hexdigest()

    @property
    def fixed_length(self) -> bool:
        """Whether a fine-tuning chooses nothing on validation studies, so that it may learn from them."""
        from medssml.config import load_config
        from medssml.runs.training_config import FinetuneConfig

        return load_config(self.finetune_config, FinetuneConfig).trainer.validate_every == 0

    def settings(self) -> dict[str, Any]:
        """What the answers of the study depend on.

        Raises:
            medssml.config.ConfigError: a wrong config.
        """
        from medssml.config import load_config
        from medssml.files import sha256_of
        from medssml.runs.training_config import FinetuneConfig, PretrainConfig
        from medssml.schema import plain

        given = (self.manifest, self.test_manifest)
        return {
            "pretraining": plain(load_config(self.config, PretrainConfig)),
            "finetuning": plain(load_config(self.finetune_config, FinetuneConfig)),
            "manifests": [sha256_of(path) for path in given if path is not None],
        }


def study_of(
    out: Path,
    cache: Path,
    manifest: Path,
    *,
    test_manifest: Path | None = None,
    data_root: Path | None = None,
    config: Path = Path("cohort"),
    finetune_config: Path = Path("cohort"),
    device: str | None = None,
) -> Study:
    """A study with the files of its configs, and the folders of the tables where no `data_root` is given."""
    from medssml.shipped_configs import config_path

    given = [Path(path).resolve() for path in (manifest, test_manifest) if path is not None]
    roots = tuple(path.parent if data_root is None else Path(data_root).resolve() for path in given)
    return Study(
        out,
        cache,
        Path(manifest),
        test_manifest,
        roots,
        config_path(config, "pretrain"),
        config_path(finetune_config, "finetune"),
        device,
    )


def merged_table(study: Study) -> tuple[pd.DataFrame, set[str]]:
    """All studies in one table, paths relative to one root; the ids of the test manifest."""
    from medssml.manifest.manifest import Manifest

    given = [path for path in (study.manifest, study.test_manifest) if path is not None]
    frames: list[pd.DataFrame] = []
    further: set[str] = set()
    for position, (path, root) in enumerate(zip(given, study.roots, strict=True)):
        read = Manifest.read(path, root)
        frame = read.table.copy()
        if position == 1:
            held = np.array(read.splits) == "test" if read.official_split else np.ones(len(read), dtype=bool)
            frame = frame.loc[held if held.any() else slice(None)].assign(split="test")
            further |= set(map(str, frame["study_id"]))
        for column in set(read.modalities) & set(frame.columns):
            moved = [str((root / cell).relative_to(study.root)) if cell else "" for cell in frame[column].fillna("")]
            frame[column] = moved
        frames.append(frame)
    return pd.concat(frames, ignore_index=True).fillna(""), further


def binary_tasks(table: pd.DataFrame) -> list[str]:
    """Tasks whose labels are 0 and 1."""
    names = [str(c).removeprefix("label_") for c in table.columns if str(c).startswith("label_")]
    return [name for name in names if _numbers(table[f"label_{name}"]) == {0, 1}]


def _numbers(labels: pd.Series) -> set[float]:
    """What a column of labels holds; a cell that is no number is one that is not finite."""
    return set(pd.to_numeric(labels[labels != ""], errors="coerce").fillna(np.inf))


def chosen_tasks(table: pd.DataFrame, asked: Sequence[str]) -> list[str]:
    """The binary tasks that were asked for, in the order of the table, or all with training studies of both classes.

    Raises:
        KeyError: the manifest has no such label column. ValueError: its labels are not 0 and 1, its training studies are of
            one class, or there is no task at all.
    """
    from medssml.runs import console
    from medssml.schema import nearest

    known = binary_tasks(table)
    for name in asked:
        if f"label_{name}" not in table.columns:
            raise KeyError(f"the manifest has no column label_{name}{nearest(name, known)}")
        if name not in known:
            raise ValueError(f"the labels of label_{name} are not 0 and 1, both of them; fix: leave it out of --tasks")
    chosen = [name for name in known if not asked or name in asked]
    one_class = [name for name in chosen if "split" in table and not _taught(table, name)]
    for name in one_class:
        reason = f"the training studies have labels of label_{name} of one class at most"
        if asked:
            raise ValueError(f"{reason}; fix: leave it out of --tasks")
        console.warn(f"{reason}: it is left out")
    chosen = [name for name in chosen if name not in one_class]
    if not chosen:
        raise ValueError(
            "the manifest has no label column with 0 and 1 among its training studies; fix: a column label_TASK"
        )
    return chosen


def _taught(table: pd.DataFrame, task: str) -> bool:
    """Whether training studies have both classes."""
    return _numbers(table.loc[table["split"] == "train", f"label_{task}"]) == {0, 1}


def plans_of(
    study: Study, table: pd.DataFrame, task: str, further: set[str], folds: int, few: int, whole: bool = False
) -> Iterator[Plan]:
    """The test split, where it has labels, and for a task with few of them the folds of a cross-validation by subject.

    Args:
        whole: validation studies are learned from as well.
    """
    from medssml.statistics.comparison import subject_folds

    labelled = table.loc[table[f"label_{task}"] != ""]
    name = f"{task}{WHOLE}" if whole else task
    if (labelled["split"] == "test").any():
        yield Plan(task, name, written(study, name, with_validation(labelled) if whole else labelled), "test")
    own = labelled.loc[~labelled["study_id"].isin(further)]
    if (own["split"] == "test").sum() >= few:
        return
    fold_of = subject_folds(list(own["subject_id"]), list(own[f"label_{task}"].astype(float)), folds)
    for fold in range(folds):
        split = np.where(fold_of == fold, "test", "train")
        name = f"{task}_fold{fold}"
        yield Plan(task, name, written(study, name, own.assign(split=split)), "folds", fold)


def with_validation(table: pd.DataFrame) -> pd.DataFrame:
    """The table with its validation studies among those of training."""
    return table.assign(split=table["split"].replace("val", "train"))


def written(study: Study, name: str, frame: pd.DataFrame) -> Path:
    """The table of a fit, beside the prepared studies."""
    from medssml.files import private_folder, write_csv

    private_folder(study.cache)
    return write_csv(study.tables / f"{name}.csv", frame, digits=None)


def once(path: Path, make: Callable[[], pd.DataFrame]) -> pd.DataFrame:
    """The table at `path`, made where it is not there yet."""
    from medssml.files import restored, write_csv

    if not path.exists():
        write_csv(path, make(), digits=None)
    return restored(pd.read_csv(path, dtype={"study_id": str, "subject": str, "subset": str}))


def pretrain_once(study: Study, seed: int) -> Path:
    """The run folder of one pretraining on the training studies of the manifest."""
    from medssml.studies.resume import unless_stopped
    from medssml.verbs.pretrain import pretrain

    out = study.out / f"seed{seed}" / "pretrain"
    done = pretrain(
        config=study.config, manifest=study.manifest, data_root=study.roots[0], out=out, seed=seed, cache=study.cache,
        device=study.device,
    )  # fmt: skip
    unless_stopped(f"seed {seed}: pretraining", done)
    return out


def model_answers(
    study: Study, plan: Plan, pretrained: Path, seed: int, split: str = "test"
) -> dict[str, pd.DataFrame]:
    """What the fine-tuned model and the probe of the frozen one say about the plan's studies of a split."""
    from medssml.files import restored
    from medssml.studies.resume import unless_stopped
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.finetune import finetune

    folder = study.out / f"seed{seed}"
    shared: dict[str, Any] = {"manifest": plan.table, "cache": study.cache, "data_root": study.root}

    asked: dict[str, Any] = {"task": [plan.task], "bootstrap": 50, "split": split, **shared}
    ending = "" if split == "test" else f"_{split}"

    def answered(checkpoint: Path, out: Path, probes: bool) -> pd.DataFrame:
        evaluate(checkpoint=str(checkpoint), out=out, probes=probes, device=study.device or "auto", **asked)
        return restored(pd.read_csv(out / "predictions.csv", dtype={"study_id": str}))

    def probed() -> pd.DataFrame:
        return answered(pretrained, folder / f"probe_{plan.name}{ending}", probes=True)

    def tuned() -> pd.DataFrame:
        run = folder / f"finetune_{plan.name}"
        start: dict[str, Any] = {"checkpoint": str(pretrained), "config": study.finetune_config, "track": False}
        done = finetune(out=run, task=[plan.task], seed=seed, device=study.device, **start, **shared)
        unless_stopped(f"seed {seed}: {plan.name}", done)
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
