"""medssml impact: what each modality contributes to the predictions of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from medssml.counterfactual.impact import Impact
    from medssml.data.prepared_studies import PreparedStudies
    from medssml.data.shard_dataset import Shards
    from medssml.evaluation.encoded_studies import EncodedStudies
    from medssml.manifest.manifest import Manifest
    from medssml.predictor import Predictor
    from medssml.statistics.bootstrap import Array

#: Training studies whose mean prediction is the answer to nothing, at most.
MOST_REFERENCE = 500


def impact(
    *,
    checkpoint: Sequence[str] = (),
    manifest: Path | None = None,
    shards: str | None = None,
    task: Sequence[str] = (),
    out: Path | None = None,
    split: Literal["test", "val", "train", "all"] = "test",
    value: str | None = None,
    baseline: str = "absent",
    empty: str = "mean",
    donors: int = 20,
    sweep: bool = True,
    unlabelled: bool = False,
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
    track: bool = True,
    self_test: bool = False,
) -> Path | int:
    """Shapley values, necessity, sufficiency, swaps and interactions of the modalities, per study and overall.

    Each study is encoded once; all coalitions are computed in fusion. The numbers are effects on the model's
    predictions, not on patients. With several checkpoints (training seeds) the intervals hold the spread between them.

    Args:
        checkpoint: run folder, or its model folder; several training seeds of one task may be given.
        manifest: the study table, CSV or Parquet.
        shards: in place of a manifest, where medssml prepare --shards wrote: a folder or a URL.
        task: a task of the model, or `all`; may be given several times.
        out: folder for impact.json, impact.csv and impact.html; of further tasks OUT/impact/TASK.
        split: studies to look at: test, val, train, or all.
        value: what a coalition is worth: positive, logit, predicted, label, log_likelihood or output.
        baseline: in place of what is outside a coalition: absent, marginal or joint.
        empty: value of nothing under the baseline absent: mean (prediction for training studies) or model.
        donors: studies of other subjects that a modality is taken from in turn.
        sweep: repeat the Shapley values with the other baselines and report changes of sign.
        unlabelled: look at studies without a label of the task too.
        bootstrap: resamples of the subjects.
        seed: of the resamples and the donors.
        truth: truth.csv of a simulated cohort; the one beside the manifest by default.
        device: auto, cpu or cuda.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        workers: processes that load studies.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plain_ids: write ids as the manifest has them; by default they are keyed hashes where the studies are
            not simulated, see docs/privacy.md.
        plugins: a package of yours that classes may come from; may be given several times.
        track: log the results to MLflow, with the training of the models.
        self_test: no data: checks that known models get their known impact, prints the table.

    Returns:
        the folder; exit code 4 where more studies were left out than the limit; of the self-test 0 where all agree, else 1.

    Raises:
        ValueError: something is missing, or no study is left. KeyError: no such task.
    """
    if self_test:
        return _self_test()
    runs = [checkpoint] if isinstance(checkpoint, (str, Path)) else list(checkpoint)
    given = {"--checkpoint": runs, "--manifest or --shards": manifest or shards, "--task": task, "--out": out}
    missing = [flag for flag, argument in given.items() if not argument]
    if missing or out is None:
        raise ValueError(f"missing {', '.join(missing)}; fix: give them, or --self-test, which needs none")

    from medssml.bounds import bounded
    from medssml.counterfactual.answers import Intervention
    from medssml.counterfactual.impact import measure_impact
    from medssml.counterfactual.interventions import BASELINES
    from medssml.counterfactual.values import check_value
    from medssml.evaluation.bayes import known_truth
    from medssml.predictor import load
    from medssml.runs import console
    from medssml.runs.cache_place import cache_of_model
    from medssml.runs.inference import FEWEST_RESAMPLES, asked_tasks, chosen_device, conclude, open_studies
    from medssml.tracking import add_impact

    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    bounded("--workers", workers, least=0)
    bounded("--donors", donors, least=1)
    where = chosen_device(device)
    how = Intervention(baseline, empty, donors, seed)
    known = known_truth(manifest, truth)
    predictors = [load(run, plugins, where) for run in runs]
    tasks = asked_tasks(task, *(predictor.tasks for predictor in predictors))
    for name in tasks:
        check_value(predictors[0].model.tasks[name].kind, value)
    table, prepared = open_studies(
        manifest, shards, predictors[0], cache_of_model(cache, runs[0], out),
        data_root=data_root, allow_outside=allow_outside, plain_ids=plain_ids, out=out, truth=truth,
    )  # fmt: skip
    remarks = _remarks(runs, predictors[0], table, split, baseline)
    asked = _asked(table, tasks, split, unlabelled, seed if baseline == "absent" and empty == "mean" else None)
    with console.step(f"encoding {len(asked.everyone)} studies"):
        encoded = [asked.encode(predictor, prepared, workers, where) for predictor in predictors]
    results = {}
    for name, place in _places(Path(out), tasks).items():
        with console.step(f"impact on {name}"):
            mine = [of_model.of(name) for of_model in encoded]
            found = measure_impact(
                [predictor.model for predictor in predictors],
                [studies for studies, _, _ in mine],
                name,
                value=value,
                intervention=how,
                sweep=tuple(BASELINES) if sweep else (),
                groups=mine[-1][2],
                classes=predictors[0].model.tasks[name].label.classes,
                references=[outputs for _, outputs, _ in mine],
                truth=known,
                bootstrap=bootstrap,
                seed=seed,
                device=where,
            )
        results[name] = _write(found, table, split, runs, remarks, place)
        if track:
            add_impact(runs, place / "impact.json")
    console.tell(results[tasks[0]] if len(tasks) == 1 else {"tasks": results})
    return conclude(encoded[-1].prepared, Path(out), "impact")


def _remarks(runs: Sequence[str], predictor: Predictor, table: Manifest, split: str, baseline: str) -> list[str]:
    """Says what the models, their training or the studies have alone, and where absence means nothing to a model."""
    from medssml.runs.modality_account import Training, of_reported, say

    remarks, _ = of_reported(runs[0], predictor.modalities, table, split)
    always = {name: None for run in runs for name in Training.of(run).never_absent}
    if always and baseline == "absent":
        said = (
            f"this model never saw a study without {', '.join(always)}: what it answers where they are absent was never "
            f"learned; fix: --baseline joint"
        )
        say([said])
        remarks = [*remarks, said]
    return remarks


def _places(out: Path, tasks: Sequence[str]) -> dict[str, Path]:
    """Task -> folder of its results: the first in `out` itself."""
    return {name: out if name == tasks[0] else out / "impact" / name for name in tasks}


@dataclass(frozen=True)
class _Asked:
    """Task -> the studies to look at, and those whose mean prediction is the answer to nothing, None where few.

    everyone, others: all studies to look at, and all others; of the same table.
    """

    chosen: dict[str, Manifest]
    reference: dict[str, Manifest | None]
    everyone: Manifest
    others: Manifest

    def encode(self, predictor: Predictor, prepared: Path | Shards, workers: int, device: str) -> _Encoded:
        """All of them behind a model's encoders, each once."""
        from medssml.data.prepared_studies import prepare_studies
        from medssml.evaluation.encoded_studies import encode_studies
        from medssml.evaluation.subsets import predict_within

        parts = [self.everyone, *([self.others] if len(self.others) else [])]
        asked = [prepare_studies(part, predictor.transforms, prepared, num_workers=workers) for part in parts]
        studies = encode_studies(predictor.model, asked[0].batches(), device)
        outputs = {}
        if len(asked) > 1 and len(asked[1].manifest):
            others = encode_studies(predictor.model, asked[1].batches(), device)
            outputs = predict_within(predictor.model, others, others.present, device=device)
        return _Encoded(self, asked, studies, outputs)


@dataclass(frozen=True)
class _Encoded:
    """What `_Asked` is to one model. outputs: task -> logits of the others."""

    asked: _Asked
    prepared: list[PreparedStudies]
    studies: EncodedStudies
    outputs: dict[str, Array]

    def of(self, task: str) -> tuple[EncodedStudies, Array | None, dict[str, Array]]:
        """The studies of a task, the logits of those that it is compared with, and the groups of the studies."""
        import numpy as np

        table = self.prepared[0].manifest
        rows = np.flatnonzero(np.isin(table.study_ids, self.asked.chosen[task].study_ids))
        if not len(rows):
            raise ValueError(f"no study of {task} is left, their files fail; see the problems above")
        reference, outputs = self.asked.reference[task], None
        if reference is not None and self.outputs:
            of = np.isin(self.prepared[1].manifest.study_ids, reference.study_ids)
            outputs = self.outputs[task][of] if of.any() else None
        return self.studies.take(rows), outputs, {name: labels[rows] for name, labels in table.groups.items()}


def _asked(table: Manifest, tasks: Sequence[str], split: str, unlabelled: bool, seed: int | None) -> _Asked:
    """seed: of the draw of the others; None for no others."""
    import numpy as np

    chosen = {task: _chosen_studies(table, task, split, unlabelled) for task in tasks}
    reference = {task: None if seed is None else _reference(table, task, split, seed) for task in tasks}

    def union(parts: Iterable[Manifest | None]) -> Manifest:
        ids = {study for part in parts if part is not None for study in part.study_ids}
        return table.filter(np.array([study in ids for study in table.study_ids], dtype=bool))

    return _Asked(chosen, reference, union(chosen.values()), union(reference.values()))


def _chosen_studies(table: Manifest, task: str, split: str, unlabelled: bool) -> Manifest:
    """Studies of the split with a label of the task, unless nobody has one."""
    studies = table if split == "all" else table.split(split)
    if not unlabelled and task in table.tasks and len(studies.labelled(task)):
        studies = studies.labelled(task)
    if len(studies) == 0:
        raise ValueError(f"no {split} study; fix: --split all, or another manifest")
    return studies


def _reference(table: Manifest, task: str, split: str, seed: int) -> Manifest | None:
    """Training studies of the task, at most 500, whose mean prediction stands for knowing nothing; None where few."""
    import numpy as np

    if split in ("train", "all"):
        return None
    train = table.split("train")
    if task in table.tasks:
        train = train.labelled(task)
    if len(train) < 20:
        return None
    return train.filter(np.sort(np.random.default_rng([seed, 3]).permutation(len(train))[:MOST_REFERENCE]))


def _write(
    found: Impact,
    table: Manifest,
    split: str,
    runs: Sequence[str],
    remarks: Sequence[str],
    out: Path,
) -> dict[str, Any]:
    from medssml import provenance
    from medssml.files import write_csv, write_json
    from medssml.reports.page import write_report
    from medssml.runs.inference import weights_hash
    from medssml.runs.result_tables import say_impact

    result: dict[str, Any] = dict(found.result)
    result["protocol"] = {
        "split": split,
        "manifest_sha256": table.sha256,
        "model_sha256": [weights_hash(run) for run in runs],
        "privacy": table.ids.facts(),
        "remarks": list(remarks),
    }
    write_json(out / "impact.json", result)
    write_csv(out / "impact.csv", found.rows)
    provenance.record(out, "impact", result["bootstrap"]["seed"])
    write_report(out, out / "impact.html", only=["impact"])
    say_impact(result)
    return result


def _self_test() -> int:
    from medssml.counterfactual.oracles import self_test
    from medssml.runs import console

    checks = self_test()
    rows = [(c.oracle, c.quantity, c.expected, c.found, "agrees" if c.agrees else "DIFFERS") for c in checks]
    console.table(rows, ("oracle", "quantity", "expected", "found", ""))
    wrong = sum(not check.agrees for check in checks)
    console.say(f"{len(checks) - wrong} of {len(checks)} agree")
    console.tell({"checks": checks})
    return 0 if wrong == 0 else 1
