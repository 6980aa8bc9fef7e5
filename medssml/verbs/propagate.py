"""medssml propagate: labels of training studies that spread to similar ones without a label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from medssml.evaluation.propagation import Propagation
    from medssml.manifest.manifest import Manifest


def propagate(
    *,
    checkpoint: str,
    manifest: Path,
    out: Path,
    task: Sequence[str] = (),
    table: Path | None = None,
    least: float = 0.0,
    neighbours: int = 10,
    alpha: float = 0.8,
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
    """Labels for unlabelled training studies, from those of similar ones, by label spreading on a pretrained model's vectors.

    How well it does is told by folds of the labelled training subjects. Validation and test studies are neither looked at nor
    filled. See docs/remedies.md.

    Args:
        checkpoint: run folder of a pretraining, which has seen no label of the task.
        manifest: the study table, CSV or Parquet.
        out: folder for propagated.csv and propagated.json.
        task: a label column without `label_`; may be given several times; every one that is of classes by default.
        table: a copy of the study table to write, with labels filled and columns weight_TASK, which finetune heeds, and
            propagated_TASK.
        least: certainty below which a label stays unknown, 0 to 1; see propagated.json for what each is worth.
        neighbours: of each study in the graph.
        alpha: how much of an answer is the neighbours', above 0 and below 1.
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
            a number, or that the model was trained on; no training study.
    """
    from medssml.bounds import bounded
    from medssml.evaluation.propagation import propagation
    from medssml.evaluation.study_vectors import StudyVectors
    from medssml.files import refuse_overwriting, write_csv, write_json
    from medssml.manifest.labels import declared_labels
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import chosen_device, conclude, encode_training, open_studies
    from medssml.runs.labels import untaught_tasks, without_discarded

    bounded("--workers", workers, least=0)
    bounded("--neighbours", neighbours, least=1)
    bounded("--alpha", alpha, above=0, below=1)
    bounded("--least", least, least=0, most=1)
    refuse_overwriting("--table", table, manifest)
    where, out = chosen_device(device), Path(out)
    predictor = load(checkpoint, plugins, where)
    given, store = open_studies(
        manifest, None, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, tasks=declared_labels(kind, classes),
    )  # fmt: skip
    tasks = untaught_tasks(given, task, predictor.tasks)
    cohort, encoded = encode_training(given, predictor, store, where, workers)
    vectors, studies = StudyVectors.of(encoded), cohort.manifest
    relied = without_discarded(studies, tasks)
    filled: dict[str, _Filled | str] = {}
    for name in tasks:
        y, label = _known(relied, name), studies.tasks[name]
        found = propagation(
            vectors, y, encoded.subject, kind=label.kind, classes=label.n_classes, neighbours=neighbours, alpha=alpha,
            seed=seed,
        )  # fmt: skip
        filled[name] = found if isinstance(found, str) else _Filled(studies, name, y, found, least)
    said = {name: {"reason": entry} if isinstance(entry, str) else entry.said() for name, entry in filled.items()}
    done = {name: entry for name, entry in filled.items() if not isinstance(entry, str)}
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "propagated.csv", _listed(done))
    write_json(out / "propagated.json", {"tasks": said, "protocol": {
        "split": "train", "studies": len(studies), "subjects": len(set(studies.subject_ids)), "neighbours": neighbours,
        "alpha": alpha, "least": least, "seed": seed, "manifest_sha256": given.sha256, "privacy": given.ids.facts(),
    }})  # fmt: skip
    _say(said)
    if table is not None:
        _with_labels(given, done).write(table)
        console.say(f"{table}: the table with these labels and their weights; its paths are those of the old one")
    console.tell({"tasks": said})
    return conclude([cohort], out, "propagate")


class _Filled:
    """The labels that one task's training studies get.

    Args:
        studies: of training. y: (n,) the labels that spread, NaN elsewhere. found: of them. least: certainty.
    """

    def __init__(self, studies: Manifest, task: str, y: Any, found: Propagation, least: float) -> None:
        import numpy as np

        from medssml.evaluation.propagation import certainty

        self.studies, self.task, self.y, self.found = studies, task, y, found
        sure = certainty(found.probability)
        #: Whose label is unknown.
        self.empty = ~np.isfinite(studies.targets[task]) | _spread_before(studies, task)
        #: Places of the studies that get a label, the surest first.
        self.rows = np.flatnonzero(self.empty & (sure >= least))
        self.rows = self.rows[np.argsort(-sure[self.rows], kind="stable")]
        self.unreached = int((self.empty & ~np.isfinite(sure)).sum())
        self.certainty = sure[self.rows].round(4)
        self.classes = found.probability[self.rows].argmax(axis=1).astype(np.float64)
        self.names = studies.tasks[task].names(self.classes)
        self.probability = found.probability[self.rows].max(axis=1).round(4)

    def said(self) -> dict[str, Any]:
        """The task's entry of propagated.json."""
        classes = self.studies.tasks[self.task].classes
        return {
            "labels": int((self.y == self.y).sum()),
            "filled": {name: int((self.classes == place).sum()) for place, name in enumerate(classes)},
            "not_reached": self.unreached,
            "held_out": self.found.check(self.y, self.studies.tasks[self.task].kind),
        }


def _known(studies: Manifest, task: str) -> Any:
    """(n,) the labels that spread: not those that an earlier propagation wrote."""
    import numpy as np

    return np.where(_spread_before(studies, task), np.nan, studies.targets[task])


def _spread_before(studies: Manifest, task: str) -> Any:
    """(n,) bool: whose label an earlier propagation wrote."""
    import numpy as np

    column = f"propagated_{task}"
    return np.asarray(studies.table[column] == "1") if column in studies.table else np.zeros(len(studies), dtype=bool)


def _listed(done: dict[str, _Filled]) -> pd.DataFrame:
    """A row for each label that was filled in, the surest first."""
    import pandas as pd

    columns = ["study_id", "subject_id", "row", "task", "label", "certainty", "probability"]
    parts = [
        pd.DataFrame(
            {
                "study_id": entry.studies.study_codes[entry.rows],
                "subject_id": entry.studies.subject_codes[entry.rows],
                "row": [entry.studies.row_number(int(row)) for row in entry.rows],
                "task": task,
                "label": entry.names,
                "certainty": entry.certainty,
                "probability": entry.probability,
            },
            columns=columns,
        )
        for task, entry in done.items()
    ]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns)


#: Held-out subjects that are told apart worse than so say that the labels are worth little.
LEAST_AUROC = 0.6


def _say(said: dict[str, dict[str, Any]]) -> None:
    from medssml.runs import console

    rows = []
    for task, entry in said.items():
        if "reason" in entry:
            console.warn(f"{task}: {entry['reason']}")
            continue
        held, filled = entry["held_out"], ", ".join(f"{name}: {count}" for name, count in entry["filled"].items())
        right = held["by_certainty"][0]["right"]
        rows.append((task, entry["labels"], filled, held["auroc"], "" if right is None else f"{right:.0%}",
                     f"{held['majority']:.0%}"))  # fmt: skip
    if rows:
        columns = ("task", "labels", "filled in", "AUROC of held-out subjects", "of them right", "commonest class")
        console.table(rows, columns)
    for task, entry in said.items():
        held = entry.get("held_out", {})
        if sum(entry.get("filled", {}).values()) and not held["auroc"] >= LEAST_AUROC:
            console.warn(
                f"{task}: labels of held-out subjects are told with an AUROC of {held['auroc']:.2f}, and what was filled in is "
                f"no better; fix: leave {task} out, or label more studies"
            )


def _with_labels(given: Manifest, done: dict[str, _Filled]) -> Manifest:
    """The whole table with the labels, and beside them how sure each is; those that were known stay as they are."""
    from dataclasses import replace

    cells = given.table
    for task, entry in done.items():
        index = entry.studies.table.index[entry.rows]
        if not entry.empty.any():
            continue
        # What an earlier propagation wrote and this one does not is unknown again.
        earlier = entry.studies.table.index[_spread_before(entry.studies, task)]
        for column, before, values in (
            (f"label_{task}", "", entry.names),
            (f"weight_{task}", "1", [f"{value:g}" for value in entry.certainty]),
            (f"propagated_{task}", "", ["1"] * len(index)),
        ):
            new = cells[column].copy() if column in cells else cells["study_id"].map(lambda _, text=before: text)
            new.loc[earlier] = before
            new.loc[index] = list(values)
            cells = cells.assign(**{column: new})
    return replace(given, table=cells)
