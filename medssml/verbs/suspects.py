"""medssml suspects: labels that a model's embeddings contradict."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from medssml.evaluation.suspects import Suspects
    from medssml.manifest.manifest import Manifest

#: Splits whose labels are looked at: a test is never relabelled by what a model thinks.
SPLITS = ("train", "val")


def suspects(
    *,
    checkpoint: str,
    manifest: Path,
    out: Path,
    task: Sequence[str] = (),
    weights: Path | None = None,
    weight: float = 0.0,
    kind: Sequence[str] = (),
    classes: Sequence[str] = (),
    seed: int = 0,
    device: str = "auto",
    cache: Path | None = None,
    workers: int = 0,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    plugins: Sequence[str] = (),
) -> Path | int:
    """Labels of training and validation that the embeddings of other subjects contradict, by confident learning.

    A linear readout of what the encoders give, fitted to the other folds' subjects, says how probable each label is; how many
    are wrong is estimated from the counts, and the least probable ones are listed. Labels of the test are never looked at. See
    docs/remedies.md.

    Args:
        checkpoint: run folder of a pretraining, which has seen no label of the task.
        manifest: the study table, CSV or Parquet.
        out: folder for suspects.csv and suspects.json.
        task: a label column without `label_`; may be given several times; every one that is of classes by default.
        weights: a copy of the table to write, with a column weight_TASK that finetune heeds.
        weight: of a suspicious label in that copy; 0 leaves it out.
        kind: TASK=binary or multiclass, where cells do not say it.
        classes: TASK=a,b,c: its classes in their order.
        seed: of the folds.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: ids as the manifest has them, not as keyed hashes; see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.

    Returns:
        the folder; exit code 4 where more studies were left out than the limit.

    Raises:
        medssml.checkpoint.CheckpointError: no model, or one that is refused. KeyError: no such task. ValueError: a task that is
            a number, or that the model was trained on.
    """
    from medssml.bounds import bounded
    from medssml.data.prepared_studies import prepare_studies
    from medssml.evaluation.encoded_studies import encode_studies
    from medssml.evaluation.suspects import find_suspects, joined_embeddings
    from medssml.files import refuse_overwriting, write_csv, write_json
    from medssml.manifest.labels import declared_labels
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import chosen_device, conclude, open_studies
    from medssml.runs.labels import untaught_tasks

    bounded("--workers", workers, least=0)
    bounded("--weight", weight, least=0, below=1)
    refuse_overwriting("--weights", weights, manifest)
    where, out = chosen_device(device), Path(out)
    predictor = load(checkpoint, plugins, where)
    table, store = open_studies(
        manifest, None, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, tasks=declared_labels(kind, classes),
    )  # fmt: skip
    tasks = untaught_tasks(table, task, predictor.tasks)
    taught = table.filter([split in SPLITS for split in table.splits]).labelled(*tasks)
    if len(taught) == 0:
        raise ValueError(f"no study of training or validation has a label of {', '.join(tasks)}; fix: the split column")
    with console.step(f"encoding {len(taught)} studies"):
        cohort = prepare_studies(taught, predictor.transforms, store, num_workers=workers)
        x = joined_embeddings(encoded := encode_studies(predictor.model, cohort.batches(), where))
    studies = cohort.manifest
    found: dict[str, Suspects | str] = {
        name: find_suspects(
            x, studies.targets[name], encoded.subject, kind=studies.tasks[name].kind,
            classes=studies.tasks[name].n_classes, seed=seed,
        )
        for name in tasks
    }  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "suspects.csv", _listed(studies, found))
    write_json(out / "suspects.json", {"tasks": {t: _said(studies, t, f) for t, f in found.items()}, "protocol": {
        "splits": list(SPLITS), "studies": len(studies), "subjects": len(set(studies.subject_ids)), "seed": seed,
        "manifest_sha256": table.sha256, "privacy": table.ids.facts(),
    }})  # fmt: skip
    _say(studies, found)
    if weights is not None:
        _weighted(table, studies, found, weight).write(weights)
        console.say(f"{weights}: the table with weight {weight:g} for each of them; its paths are those of the old one")
    console.tell({"tasks": {name: _said(studies, name, entry) for name, entry in found.items()}})
    return conclude([cohort], out, "suspects")


def _listed(studies: Manifest, found: dict[str, Suspects | str]) -> pd.DataFrame:
    """A row for each suspicious label, the least probable first."""
    import numpy as np
    import pandas as pd

    parts = []
    for task, entry in found.items():
        if isinstance(entry, str):
            continue
        rows, label, y = np.flatnonzero(entry.suspect), studies.tasks[task], studies.targets[task]
        likeliest = entry.probability[rows].argmax(axis=1)
        parts.append(
            pd.DataFrame(
                {
                    "study_id": studies.study_codes[rows],
                    "subject_id": studies.subject_codes[rows],
                    "row": [studies.row_number(int(row)) for row in rows],
                    "split": studies.splits[rows],
                    "task": task,
                    "label": label.names(y[rows]),
                    "likeliest": label.names(likeliest.astype(np.float64)),
                    "probability_of_label": entry.of_label(y)[rows].round(4),
                    "probability_of_likeliest": entry.probability[rows, likeliest].round(4),
                }
            ).sort_values("probability_of_label", kind="stable")
        )
    columns = ["study_id", "subject_id", "row", "split", "task", "label", "likeliest", "probability_of_label"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=[*columns, "probability_of_likeliest"])


def _said(studies: Manifest, task: str, found: Suspects | str) -> dict[str, Any]:
    """One task's entry of suspects.json."""
    import numpy as np

    if isinstance(found, str):
        return {"reason": found}
    y, names = studies.targets[task], studies.tasks[task].classes
    rates = {
        truth: {told: _number(found.taken_for[i, j]) for i, told in enumerate(names)} for j, truth in enumerate(names)
    }
    return {
        "labels": int(np.isfinite(y).sum()),
        "suspects": int(found.suspect.sum()),
        "estimated_share_wrong": found.wrong,
        "estimated_labels_of_class": rates,
        "auroc_held_out": _auroc(y, found.probability, studies.tasks[task].kind),
        "readout": found.setting,
    }


def _number(value: float) -> float | None:
    return None if value != value else round(float(value), 4)


def _auroc(y: Any, probability: Any, kind: str) -> float:
    """How well held-out probabilities tell the labels, as they are: near 0.5 nothing here says which label is wrong."""
    import numpy as np

    from medssml.statistics.bootstrap import Metric
    from medssml.statistics.metrics import auroc, macro_auroc, point

    known = np.isfinite(y) & np.isfinite(probability).all(axis=1)
    metric: Metric = auroc if kind == "binary" else macro_auroc
    return float(point(metric, y[known], probability[known, 1] if kind == "binary" else probability[known]))


def _say(studies: Manifest, found: dict[str, Suspects | str]) -> None:
    from medssml.runs import console

    rows = []
    for task, entry in found.items():
        if isinstance(entry, str):
            console.warn(f"{task}: {entry}")
            continue
        said = _said(studies, task, entry)
        rows.append((task, said["labels"], said["suspects"], f"{entry.wrong:.0%}", said["auroc_held_out"]))
    if rows:
        console.table(rows, ("task", "labels", "suspicious", "wrong, as estimated", "AUROC of held-out subjects"))


def _weighted(table: Manifest, studies: Manifest, found: dict[str, Suspects | str], weight: float) -> Manifest:
    """The whole table with a column of weights for each task; those that it has already stay for other labels."""
    from dataclasses import replace

    cells = table.table
    for task, entry in found.items():
        if isinstance(entry, str):
            continue
        column = f"weight_{task}"
        values = cells[column].copy() if column in cells else cells["study_id"].map(lambda _: "1")
        values.loc[studies.table.index[entry.suspect]] = f"{weight:g}"
        cells = cells.assign(**{column: values})
    return replace(table, table=cells)
