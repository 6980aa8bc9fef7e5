"""medssml stress: what obstacles cost a fine-tuned model, by their severity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medssml.evaluation.stress import Answers, Tested
    from medssml.manifest.manifest import Manifest
    from medssml.obstacles import Obstacle

#: Folder of the answers that are there already, so that a sweep goes on where it was ended.
ANSWERS = "stress_answers"
#: Raised where the same obstacle comes to change a study otherwise: answers of before are then asked again.
REVISION = 1


def stress(
    *,
    run: str,
    manifest: Path,
    out: Path,
    obstacles: Sequence[str] = (),
    severities: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
    task: Sequence[str] = (),
    split: Literal["test", "val", "train", "all"] = "test",
    bootstrap: int = 1000,
    seed: int = 0,
    truth: Path | None = None,
    device: str = "auto",
    cache: Path | None = None,
    workers: int = 0,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    plugins: Sequence[str] = (),
) -> Path | int:
    """Metrics of a fine-tuned model on studies that meet obstacles, by severity: one curve per obstacle.

    Obstacles are absent modalities, lost parts, noise by each modality's physics, and modalities of other patients; see
    docs/obstacles.md. Each study meets the same one whenever it is asked for. Only what is damaged is encoded again. A sweep
    that was ended goes on with the obstacles and severities that are not done. Intervals are 95 %, by drawing subjects.

    Args:
        run: run folder of a fine-tuning, or its model folder.
        manifest: the study table, CSV or Parquet.
        out: folder for stress.json and stress.html.
        obstacles: names of obstacles, such as absent ct_dose; several at once as absent=0.5+ct_dose@0.3, see
            docs/obstacles.md; all that these studies can meet, one by one, by default.
        severities: 0 to 1; 0 is always among them.
        task: a task of the model; may be given several times; every one by default. Absence by label goes by the first.
        split: studies to report: test, val, train, or all.
        bootstrap: resamples of the subjects.
        seed: of the obstacles and the resamples.
        truth: truth.csv of a simulated cohort; the one beside the manifest by default.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: ids as the manifest has them in problems.csv, not as keyed hashes; see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.

    Returns:
        the folder; the exit code 4 where more studies were left out than the limit.

    Raises:
        medssml.checkpoint.CheckpointError: no model, or one that is refused. KeyError: no such task or obstacle.
    """
    from medssml.bounds import bounded
    from medssml.data.prepared_studies import prepare_studies
    from medssml.evaluation.bayes import known_truth
    from medssml.evaluation.stress import Tested, chosen_studies, possible
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import FEWEST_RESAMPLES, asked_tasks, chosen_device, conclude, open_studies
    from medssml.runs.modality_account import of_reported

    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    bounded("--workers", workers, least=0)
    asked = _severities(severities)
    where = chosen_device(device)
    known = known_truth(manifest, truth)
    predictor = load(run, plugins, where)
    tasks = asked_tasks(task, predictor.tasks)
    table, store = open_studies(
        manifest, None, predictor, cache_of_model(cache, run, out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, truth=truth,
    )  # fmt: skip
    remarks, _ = of_reported(run, predictor.modalities, table, split)
    chosen = chosen_studies(table if split == "all" else table.split(split), tasks)
    tasks = [name for name in tasks if name in table.tasks]
    with console.step(f"encoding {len(chosen)} studies"):
        cohort = prepare_studies(chosen, predictor.transforms, store, num_workers=workers)
        tested = Tested.of(predictor.model, cohort, where)
    found, left_out = possible(tested, table, obstacles, tasks[0], seed)
    if not found:
        raise ValueError(f"no obstacle is left: {'; '.join(f'{name}: {why}' for name, why in left_out.items())}")
    protocol = _protocol(run, table, tested, tasks, found, asked, bootstrap, seed, split) | {"remarks": remarks}
    _say(protocol, left_out)
    with console.step("stress"):
        answers = {obstacle.name: _sweep(tested, obstacle, asked, protocol, Path(out)) for obstacle in found}
    result = {"tasks": _measured(tested, found, answers, protocol, known), "left_out": left_out, "protocol": protocol}
    _write(result, Path(out), seed)
    return conclude([cohort], Path(out), "stress")


def _severities(given: Sequence[float]) -> list[float]:
    """Ascending, each once, 0 among them: what everything is measured by."""
    from medssml.bounds import bounded

    for severity in given:
        bounded("--severities", severity, least=0, most=1)
    return sorted({0.0, *map(float, given)})


def _protocol(
    run: str,
    table: Manifest,
    tested: Tested,
    tasks: Sequence[str],
    obstacles: Sequence[Obstacle],
    severities: Sequence[float],
    bootstrap: int,
    seed: int,
    split: str,
) -> dict[str, Any]:
    from medssml.runs.inference import weights_hash

    studies = tested.clean
    return {
        "split": split,
        "studies": len(studies),
        "subjects": len(set(studies.subject.tolist())),
        "modalities": {m: int(studies.has[:, studies.column(m)].sum()) for m in studies.modalities},
        "tasks": list(tasks),
        "obstacles": [obstacle.name for obstacle in obstacles],
        "severities": list(severities),
        "bootstrap": {"resamples": bootstrap, "unit": "subjects", "seed": seed},
        "seed": seed,
        "manifest_sha256": table.sha256,
        "model_sha256": weights_hash(run),
        "privacy": table.ids.facts(),
    }


def _say(protocol: Mapping[str, Any], left_out: Mapping[str, str]) -> None:
    """The protocol, before anything is measured."""
    from medssml.runs import console

    having = ", ".join(f"{count} {name}" for name, count in protocol["modalities"].items() if count)
    levels = ", ".join(f"{severity:g}" for severity in protocol["severities"])
    console.say(
        f"{protocol['studies']} {protocol['split']} studies of {protocol['subjects']} subjects ({having}); tasks "
        f"{', '.join(protocol['tasks'])}; severities {levels}; seed {protocol['seed']}"
    )
    for name, reason in left_out.items():
        console.say(f"not asked: {name}: {reason}")


def _sweep(
    tested: Tested, obstacle: Obstacle, severities: Sequence[float], protocol: Mapping[str, Any], out: Path
) -> dict[float, Answers]:
    """Severity -> answers; those that lie in `out` already are not asked again."""
    from medssml.evaluation.stress import answered
    from medssml.runs import console

    found, fresh = {}, 0
    for severity in severities:
        at = obstacle.at(severity)
        file = out / ANSWERS / f"{at.name}_{severity:g}.json"
        identity = _identity(tested, at, protocol)
        known = _known(file, identity)
        if known is None:
            known, fresh = answered(tested, at, protocol["tasks"]), fresh + 1
            _keep(file, identity, known)
        found[severity] = known
    console.say(f"  {obstacle.name}: {obstacle.says}" + ("" if fresh else " (done before)"))
    return found


def _identity(tested: Tested, obstacle: Obstacle, protocol: Mapping[str, Any]) -> str:
    """Whatever the answers depend on, as a digest."""
    import hashlib
    import json

    depends = {
        "revision": REVISION,
        "model": protocol["model_sha256"],
        "manifest": protocol["manifest_sha256"],
        "tasks": protocol["tasks"],
        "studies": list(tested.cohort.manifest.study_ids),
        "obstacle": obstacle.described(),
    }
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()


def _known(file: Path, identity: str) -> Answers | None:
    import json

    import numpy as np

    from medssml.evaluation.stress import Answers

    try:
        held = json.loads(file.read_text(encoding="utf-8"))
        if held["identity"] != identity:
            return None
        return Answers({task: np.array(scores) for task, scores in held["scores"].items()}, np.array(held["left"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _keep(file: Path, identity: str, answers: Answers) -> None:
    from medssml.files import write_json

    write_json(file, {"identity": identity, "left": answers.left, "scores": answers.scores})


def _measured(
    tested: Tested,
    obstacles: Sequence[Obstacle],
    answers: Mapping[str, Mapping[float, Answers]],
    protocol: Mapping[str, Any],
    truth: Any,
) -> dict[str, Any]:
    """Task -> kind, metric, and the entry of every obstacle."""
    from medssml.evaluation.bayes import bayes_by_subset
    from medssml.evaluation.stress_measures import Question, measured

    studies = tested.clean
    tasks: dict[str, Any] = {}
    for task in protocol["tasks"]:
        best = None if truth is None else bayes_by_subset(truth, studies.study_id, task, studies.modalities)
        question = Question(
            task, tested.model.tasks[task].kind, studies.targets[task], studies.subject, studies.modalities, best,
            protocol["bootstrap"]["resamples"], protocol["seed"],
        )  # fmt: skip
        found = {
            each.name: {"says": each.says, **measured(question, answers[each.name], absent=each.removes)}
            for each in obstacles
        }
        tasks[task] = {"kind": question.kind, "metric": question.metric, "n": len(question.rows), "obstacles": found}
    return tasks


def _write(result: Mapping[str, Any], out: Path, seed: int) -> None:
    from medssml import provenance
    from medssml.files import write_json
    from medssml.reports.stress_page import write_stress_page
    from medssml.runs import console
    from medssml.runs.result_tables import say_stress

    write_json(out / "stress.json", result)
    console.tell(result)
    provenance.record(out, "stress", seed)
    write_stress_page(out / "stress.html", result)
    say_stress(result)
