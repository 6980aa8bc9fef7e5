"""medssml evaluate: probes, retrieval and metrics for every missing pattern."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from medssml.data.prepared_studies import PreparedStudies
    from medssml.evaluation.encoded_studies import EncodedStudies
    from medssml.evaluation.probing import FusedEmbeddings, Splits
    from medssml.evaluation.tasks import TaskSettings
    from medssml.evaluation.zero_shot import Prompts
    from medssml.manifest.manifest import Manifest
    from medssml.model import MultimodalModel
    from medssml.predictor import Predictor


def evaluate(
    *,
    checkpoint: str,
    manifest: Path | None = None,
    shards: str | None = None,
    out: Path,
    split: Literal["test", "val", "train", "all"] = "test",
    task: Sequence[str] = (),
    kind: Sequence[str] = (),
    classes: Sequence[str] = (),
    bootstrap: int = 1000,
    seed: int = 0,
    probes: bool = True,
    zero_shot: str | None = None,
    align: Literal["centre", "covariance"] | None = None,
    by: str | None = None,
    truth: Path | None = None,
    device: str = "auto",
    cache: Path | None = None,
    workers: int = 0,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    plugins: Sequence[str] = (),
    track: bool = True,
) -> Path | int:
    """Metrics of every task for every subset of modalities, probes of the embedding, and retrieval between modalities.

    Each study is encoded once. A task that the model has no head for is answered by a linear probe, fitted on the
    training studies of the manifest. Intervals are 95 %, by drawing subjects.

    Args:
        checkpoint: run folder, or its model folder.
        manifest: the study table, CSV or Parquet.
        shards: in place of a manifest, where medssml prepare --shards wrote: a folder or a URL.
        out: folder for metrics.json, predictions.csv, retrieval.json, embedding_map.csv and problems.csv.
        split: studies to report: test, val, train, or all.
        task: name of a label column without `label_`; may be given several times; every one by default.
        kind: TASK=binary, multiclass or regression, or regression:UNIT, of a task that the model does not have, where the
            cells alone do not say it rightly.
        classes: TASK=a,b,c: the values of its classes in their order; may be given several times.
        bootstrap: resamples of the subjects.
        seed: of the resamples, the folds and the picture.
        probes: fit probes on the training studies.
        zero_shot: a YAML or JSON file of prompts (task, class, sentences), or `phantom`, which comes with medssml: AUROC of
            what lies nearest, of a pretrained run that kept a space with reports.
        align: centre or covariance: also with each group's vectors moved to those of training, apart.
        by: column of the groups of --align; source, site, hospital, ... by default, as in check.
        truth: truth.csv of a simulated cohort; the one beside the manifest by default.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: ids as the manifest has them, not as keyed hashes; see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.
        track: log the results to MLflow, with the training of the model.

    Returns:
        the folder; the exit code 4 where more studies were left out than the limit.

    Raises:
        medssml.checkpoint.CheckpointError: no model, or one that is refused. KeyError: no such task.
    """
    from medssml import provenance
    from medssml.bounds import bounded
    from medssml.data.prepared_studies import prepare_studies
    from medssml.evaluation.bayes import known_truth
    from medssml.evaluation.probing import FusedEmbeddings
    from medssml.evaluation.tasks import TaskSettings
    from medssml.files import write_csv, write_json
    from medssml.manifest.labels import declared_labels
    from medssml.predictor import load
    from medssml.reports.simulated_examples import examples_seen, is_phantom
    from medssml.runs import console
    from medssml.runs.aligned_groups import aligned_figures, groups_of
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import FEWEST_RESAMPLES, chosen_device, conclude, open_studies
    from medssml.runs.labels import facts, label_account, say_account
    from medssml.runs.modality_account import of_reported
    from medssml.runs.prompts import prompts_of
    from medssml.runs.result_tables import say_evaluation
    from medssml.tracking import add_evaluation

    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    bounded("--workers", workers, least=0)
    where = chosen_device(device)
    known = known_truth(manifest, truth)
    predictor = load(checkpoint, plugins, where)
    table, prepared = open_studies(
        manifest, shards, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, truth=truth,
        tasks=declared_labels(kind, classes),
    )  # fmt: skip
    remarks, training = of_reported(checkpoint, predictor.modalities, table, split)
    names = _chosen_tasks(table, task)
    prompts = prompts_of(zero_shot, table, names)
    account = label_account(table, names)
    say_account(account)
    groups = groups_of(table, align, by, split)
    taught = probes or groups is not None
    needed = table if taught or split == "all" else table.filter((table.splits == split) | (table.splits == "val"))
    with console.step("reading the studies"):
        cohort = prepare_studies(needed, predictor.transforms, prepared, num_workers=workers)
    with console.step("encoding"):
        splits = _splits(cohort, predictor.model, split, taught, where)
    with console.step("metrics"):
        # Probes need training studies that are not the ones reported.
        settings = TaskSettings(bootstrap, seed, probes and splits.train is not splits.test, where, known)
        embeddings = FusedEmbeddings(predictor.model, splits, where)
        results, predictions = _tasks(embeddings, cohort, names, settings)
        apart, moved = aligned_figures(groups, embeddings, cohort.manifest, results, settings)
        retrieval, shown = _retrieval(predictor.model, splits.test, bootstrap, seed)
        found = _zero_shot(predictor, splits.test, prompts, table, bootstrap, seed)
    never = [name for name in predictor.modalities if training.trained is not None and name not in training.trained]
    for name, entry in results.items():
        entry["labels"] = account[name]["splits"]
        _mark(entry["subsets"], never)
    protocol = _protocol(cohort, split, bootstrap, seed, checkpoint, splits) | {"remarks": remarks}
    metrics = {"tasks": results, "retrieval": retrieval, **found, **apart, "protocol": protocol}
    write_json(Path(out) / "metrics.json", metrics)
    console.tell(metrics)
    if manifest is not None and is_phantom(manifest):
        shown["seen"] = examples_seen(cohort.manifest, shown["pairs"])
    write_json(Path(out) / "retrieval.json", shown)
    if track:
        add_evaluation(checkpoint, Path(out) / "metrics.json", facts(account))
    write_csv(Path(out) / "predictions.csv", predictions)
    _write_aligned(Path(out) / "predictions_aligned.csv", moved, cohort.manifest)
    write_csv(Path(out) / "embedding_map.csv", _map(predictor.model, splits.test, cohort, seed, where))
    provenance.record(Path(out), "evaluate", seed)
    say_evaluation(metrics)
    return conclude([cohort], Path(out), "evaluate")


def _chosen_tasks(table: Any, task: Sequence[str]) -> list[str]:
    from medssml.schema import nearest

    asked = [task] if isinstance(task, str) else list(task)
    if asked == ["all"]:
        asked = []
    for name in asked:
        if name not in table.tasks:
            raise KeyError(f"the manifest has no column label_{name}{nearest(name, table.tasks)}")
    return asked or list(table.tasks)


def _zero_shot(
    predictor: Predictor, studies: EncodedStudies, prompts: Prompts, table: Manifest, bootstrap: int, seed: int
) -> dict[str, Any]:
    """{"zero_shot": its entry of metrics.json}, which is said as well; {} where it was not asked for."""
    from medssml.evaluation.zero_shot import rows_of, why_not, zero_shot_tasks
    from medssml.runs import console
    from medssml.runs.prompts import targets_of

    if not prompts:
        return {}
    if reason := why_not(predictor.model):
        console.warn(reason)
        return {"zero_shot": {"tasks": {}, "reason": reason}}
    found = zero_shot_tasks(
        studies, predictor.model, prompts, targets_of(table), lambda said: predictor.directions(said).cpu().numpy(),
        n=bootstrap, seed=seed,
    )  # fmt: skip
    console.say("zero-shot, from sentences alone:")
    console.table(rows_of(found), ("task", "shown", "studies", "positives", "AUROC"))
    return {"zero_shot": found}


def _splits(cohort: PreparedStudies, model: MultimodalModel, split: str, taught: bool, device: str) -> Splits:
    from medssml.evaluation.encoded_studies import encode_studies
    from medssml.evaluation.probing import Splits

    table = cohort.manifest
    reported = table if split == "all" else table.split(split)
    if len(reported) == 0:
        raise ValueError(f"no {split} study is left; fix: --split, or the files named in problems.csv")
    test = encode_studies(model, cohort.batches(reported), device)

    def other(name: str) -> EncodedStudies | None:
        studies = table.split(name)
        if not len(studies) or split in (name, "all"):
            return None
        return encode_studies(model, cohort.batches(studies), device)

    train = other("train") if taught else None
    return Splits(test if train is None else train, other("val"), test)


def _tasks(
    embeddings: FusedEmbeddings, cohort: PreparedStudies, names: Sequence[str], settings: TaskSettings
) -> tuple[dict[str, Any], pd.DataFrame]:
    """The entry `tasks` of metrics.json, and predictions.csv."""
    from medssml.evaluation.tasks import evaluate_task, stacked
    from medssml.runs import console
    from medssml.runs.prompts import targets_of

    results, frames, targets = {}, [], targets_of(cohort.manifest)
    split_of = dict(zip(cohort.manifest.study_codes, cohort.manifest.splits, strict=True))
    for name in names:
        results[name], frame = evaluate_task(embeddings.model, embeddings, targets[name], settings, split_of)
        if results[name].get("absent_classes"):
            absent = ", ".join(results[name]["absent_classes"])
            console.warn(f"{name}: no reported study is of class {absent}; means over classes are over the others")
        frames.append(frame)
    return results, _with_subjects(stacked(frames), cohort.manifest)


def _write_aligned(path: Path, predictions: pd.DataFrame | None, table: Manifest) -> None:
    """predictions_aligned.csv; that of an earlier call does not stay where nothing is aligned now."""
    from medssml.files import write_csv

    if predictions is None:
        path.unlink(missing_ok=True)
    else:
        write_csv(path, _with_subjects(predictions, table))


def _with_subjects(predictions: pd.DataFrame, table: Manifest) -> pd.DataFrame:
    """With each subject under its name in results, for the number that evaluation counts subjects by."""
    subject_of = dict(zip(table.study_codes, table.subject_codes, strict=True))
    return predictions.assign(subject=predictions["study_id"].map(subject_of))


def _retrieval(
    model: MultimodalModel, studies: EncodedStudies, bootstrap: int, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entry `retrieval` of metrics.json, and retrieval.json; both empty where no space was trained, or it is gone."""
    from medssml.evaluation.retrieval import examples, retrieve_all, shared_space, spaces_of

    shared = shared_space(model)
    if shared is None:
        reason = "no contrast between modalities was learned, or the model was fine-tuned since"
        return {}, {"space": None, "reason": reason, "pairs": {}}
    spaces = spaces_of(studies, shared)
    found = retrieve_all(studies, spaces, n=bootstrap, seed=seed)
    return found, {"space": "the space of the contrast", "pairs": examples(studies, spaces, seed=seed)}


def _protocol(
    cohort: PreparedStudies, split: str, bootstrap: int, seed: int, checkpoint: str, splits: Splits
) -> dict[str, Any]:
    from medssml.runs.inference import weights_hash

    table = cohort.manifest
    return {
        "seed": seed,
        "split": split,
        "splits": {name: int((table.splits == name).sum()) for name in ("train", "val", "test")},
        "official_split": table.official_split,
        "manifest_sha256": table.sha256,
        "model_sha256": weights_hash(checkpoint),
        "privacy": table.ids.facts(),
        "bootstrap": {"resamples": bootstrap, "level": 0.95, "unit": "subjects"},
        "studies": len(splits.test),
        "left_out": {"failing files": cohort.quarantined, "nothing to read": cohort.empty},
        "subsets": "on the labelled studies that have all of the subset, of which only the subset is shown",
        "balanced_accuracy": "threshold chosen on the validation studies of each task, see threshold",
        "retrieval": "candidates are all reported studies with both modalities; same subject or same input is a hit",
    }


def _mark(subsets: Mapping[str, dict[str, Any]], never: Sequence[str]) -> None:
    """Names in each subset the modalities that no training study of the model had: what it makes of them is chance."""
    for name, entry in subsets.items():
        untrained = [modality for modality in name.split("+") if modality in never]
        if untrained:
            entry["never_trained"] = untrained


def _map(
    model: MultimodalModel, studies: EncodedStudies, cohort: PreparedStudies, seed: int, device: str
) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    from medssml.evaluation.embedding_map import MOST, embedding_map
    from medssml.evaluation.encoded_studies import bits, subset_name
    from medssml.evaluation.subsets import embed_subset, shown_targets

    rows = np.sort(np.random.default_rng(seed).permutation(len(studies))[:MOST])
    places = embedding_map(embed_subset(model, studies, device=device)[rows], seed=seed)
    patterns = [subset_name(int(b), studies.modalities) for b in bits(studies.has)[rows]]
    ids = np.array(studies.study_id, dtype=object)[rows]
    columns = {"study_id": ids, "x": places[:, 0], "y": places[:, 1], "pattern": patterns}
    labels = {
        f"label_{task}": shown_targets(studies.targets[task][rows], label.kind, label.classes)
        for task, label in cohort.manifest.tasks.items()
        if task in studies.targets
    }
    return pd.DataFrame({**columns, **labels})
