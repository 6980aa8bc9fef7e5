"""medssml select: which unlabelled studies to label next."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import pandas as pd

    from medssml.evaluation.encoded_studies import EncodedStudies
    from medssml.evaluation.selection import Chosen
    from medssml.manifest.manifest import Manifest
    from medssml.predictor import Predictor

By = Literal["uncertain_and_diverse", "entropy", "margin", "diverse"]


def select(
    *,
    checkpoint: str,
    manifest: Path,
    out: Path,
    task: Sequence[str] = (),
    count: int = 20,
    by: By = "uncertain_and_diverse",
    per_subject: int = 1,
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
    """The unlabelled training studies whose labels a model could use most, as a list to hand to who reads them (active learning).

    A study counts as uncertain by the fine-tuned model's own answer or, of a pretraining, by a linear readout of the labels
    that are there. See docs/remedies.md.

    Args:
        checkpoint: run folder of a pretraining or a fine-tuning.
        manifest: the study table, CSV or Parquet.
        out: folder for select.csv and select.json.
        task: what is to be labelled, without `label_`; may be given several times; every one that is of classes by default.
        count: how many studies.
        by: entropy or margin of the answers; diverse, far from every labelled study and from each other (needs no label at
            all); uncertain_and_diverse, the diverse ones of those of the highest entropy, ten times as many.
        per_subject: studies of one subject at most.
        kind: TASK=binary or multiclass, where cells do not say it.
        classes: TASK=a,b,c: its classes in their order.
        seed: of the folds on which the readout's penalty is chosen.
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
            a number, no training study without a label, or too few labels to say what is uncertain.
    """
    import numpy as np

    from medssml.bounds import bounded
    from medssml.files import write_csv, write_json
    from medssml.manifest.labels import declared_labels
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import chosen_device, conclude, encode_training, open_studies

    bounded("--workers", workers, least=0)
    bounded("--count", count, least=1)
    bounded("--per-subject", per_subject, least=1)
    where, out = chosen_device(device), Path(out)
    predictor = load(checkpoint, plugins, where)
    given, store = open_studies(
        manifest, None, predictor, cache_of_model(cache, checkpoint, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, tasks=declared_labels(kind, classes),
    )  # fmt: skip
    tasks = _asked(given, task, predictor)
    cohort, encoded = encode_training(given, predictor, store, where, workers)
    studies = cohort.manifest
    lacking = {name: ~np.isfinite(studies.targets[name]) if name in studies.tasks else _all(studies) for name in tasks}
    among = np.flatnonzero(np.any(list(lacking.values()), axis=0) if tasks else _all(studies))
    if len(among) == 0:
        raise ValueError(f"every training study is labelled for {', '.join(tasks)}; fix: studies without a label")
    answers, sources = ({}, {}) if by == "diverse" else _answers(predictor, studies, encoded, tasks, seed)
    if by != "diverse" and not answers:
        reasons = "; ".join(f"{name}: {why}" for name, why in sources.items()) or "there is no task"
        raise ValueError(f"nothing says which studies are uncertain ({reasons}); fix: --by diverse")
    scores = {name: np.where(lacking[name], _uncertainty(p, by), np.nan) for name, p in answers.items()}
    chosen = _chosen(by, encoded, scores, among, studies, count, per_subject)
    out.mkdir(parents=True, exist_ok=True)
    listed = _listed(studies, chosen, scores, answers, by)
    write_csv(out / "select.csv", listed)
    told = {"chosen": len(listed), "candidates": len(among), "by": by, "answers": sources}
    write_json(out / "select.json", {**told, "protocol": {
        "split": "train", "studies": len(studies), "tasks": tasks, "count": count, "per_subject": per_subject, "seed": seed,
        "manifest_sha256": given.sha256, "privacy": given.ids.facts(),
    }})  # fmt: skip
    for name, source in sources.items():
        console.say(f"{name}: {source}")
    console.say(
        f"{out / 'select.csv'}: {len(listed)} of {len(among)} training studies without a label, in the order to read them"
    )
    console.tell(told)
    return conclude([cohort], out, "select")


def _asked(given: Manifest, task: Sequence[str], predictor: Predictor) -> list[str]:
    """Tasks of the table, or those that the model answers where the table has none; none at all is one way to ask."""
    from medssml.runs.inference import asked_tasks
    from medssml.runs.labels import tasks_of_classes

    if given.tasks:
        return tasks_of_classes(given, task)
    names = asked_tasks(task, predictor.tasks) if predictor.tasks or task else []
    return [name for name in names if predictor.model.tasks[name].kind != "regression"]


def _all(studies: Manifest) -> Any:
    import numpy as np

    return np.ones(len(studies), dtype=bool)


def _answers(
    predictor: Predictor, studies: Manifest, encoded: EncodedStudies, tasks: Sequence[str], seed: int
) -> tuple[dict[str, Any], dict[str, str]]:
    """Task -> (n, K) probabilities of every study; and task -> where they come from, or why there are none."""
    import numpy as np

    from medssml.evaluation.probes import linear_readout
    from medssml.evaluation.suspects import joined_embeddings
    from medssml.runs.labels import without_discarded

    found, sources = {}, {}
    x, relied = joined_embeddings(encoded), without_discarded(studies, [t for t in tasks if t in studies.tasks])
    for name in tasks:
        if name in predictor.tasks:
            found[name], sources[name] = _model_answers(predictor, encoded, name), "answers of the model"
            continue
        label, y = studies.tasks[name], relied.targets[name]
        readout = linear_readout(x, y, encoded.subject, kind=label.kind, classes=label.n_classes, seed=seed)
        if isinstance(readout, str):
            sources[name] = readout
            continue
        scores = readout.scores(x)
        found[name] = np.c_[1 - scores, scores] if label.kind == "binary" else scores
        sources[name] = f"a linear readout of {int(np.isfinite(y).sum())} labels"
    return found, sources


def _model_answers(predictor: Predictor, encoded: EncodedStudies, task: str) -> Any:
    """(n, K) probabilities of every study from all that it has."""
    import numpy as np
    import torch

    from medssml.evaluation.encoded_studies import fuse_studies
    from medssml.objectives.study_loss import log_probabilities, wide

    model = predictor.model.cpu()
    head, kind = model.heads[task], model.tasks[task]
    with torch.inference_mode():
        parts = [
            log_probabilities(kind, wide(head(fused))).exp() for fused in fuse_studies(model, encoded, encoded.present)
        ]
    return np.concatenate([part.double().numpy() for part in parts])


def _uncertainty(probability: Any, by: By) -> Any:
    from medssml.evaluation.selection import entropy, margin

    return margin(probability) if by == "margin" else entropy(probability)


def _chosen(
    by: By, encoded: EncodedStudies, scores: dict[str, Any], among: Any, studies: Manifest, count: int, per_subject: int
) -> Chosen:
    """The studies by the way that was asked for; of several tasks the mean uncertainty over those that a study lacks."""
    import numpy as np

    from medssml.evaluation.selection import diverse_uncertain, k_centre, most_uncertain
    from medssml.evaluation.study_vectors import StudyVectors

    subjects = studies.subject_ids
    score = _mean(scores, len(studies))
    if by in ("entropy", "margin"):
        return most_uncertain(score, among, subjects, count, per_subject)
    centres = np.setdiff1d(np.arange(len(studies)), among)
    vectors = StudyVectors.of(encoded)
    if by == "diverse":
        return k_centre(vectors, among, centres, subjects, count, per_subject)
    return diverse_uncertain(vectors, score, among, centres, subjects, count, per_subject)


def _mean(scores: dict[str, Any], n: int) -> Any:
    """(n,) over the tasks that say something of a study; NaN where none does."""
    import numpy as np

    if not scores:
        return np.full(n, np.nan)
    table = np.stack(list(scores.values()))
    known = np.isfinite(table)
    return np.where(known.any(0), np.where(known, table, 0.0).sum(0) / np.maximum(known.sum(0), 1), np.nan)


def _listed(studies: Manifest, chosen: Chosen, scores: dict[str, Any], answers: dict[str, Any], by: By) -> pd.DataFrame:
    """A row for each study, in the order in which to read them, with why it is there."""
    import pandas as pd

    rows, score = chosen.rows, _mean(scores, len(studies))
    worth = chosen.distance if by == "diverse" else score[rows]
    return pd.DataFrame(
        {
            "order": range(1, len(rows) + 1),
            "study_id": studies.study_codes[rows],
            "subject_id": studies.subject_codes[rows],
            "row": [studies.row_number(int(row)) for row in rows],
            "score": worth.round(4),
            "reason": [
                _reason(studies, int(row), float(distance), scores, answers, by)
                for row, distance in zip(rows, chosen.distance, strict=True)
            ],
        }
    )


def _reason(
    studies: Manifest, row: int, distance: float, scores: dict[str, Any], answers: dict[str, Any], by: By
) -> str:
    """Why a study was chosen, in words: what it is answered, and how far from all others it lies."""
    said = []
    for task, score in scores.items():
        if score[row] == score[row]:
            place = int(answers[task][row].argmax())
            names = studies.tasks[task].classes if task in studies.tasks else ()
            called = names[place] if names else str(place)
            what = "margin" if by == "margin" else "entropy"
            said.append(f"{task} {called} with {answers[task][row].max():.2f} ({what} {score[row]:.2f})")
    if distance == distance:
        said.append(f"{distance:.2f} from the nearest labelled or chosen study")
    return ", ".join(said) or "the most typical study"
