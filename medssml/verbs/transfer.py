"""medssml transfer: a student of a poor modality learns from a teacher of rich ones, and what that is worth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.data.shard_dataset import Shards
    from medssml.evaluation.zero_shot import Prompts
    from medssml.manifest.manifest import Manifest
    from medssml.model import MultimodalModel
    from medssml.runs.student import Student
    from medssml.runs.training_config import Finetuning, Transferring
    from medssml.runs.transfer_bench import Bench
    from medssml.runs.transfer_studies import TransferStudies

#: Result file and page.
RESULT, PAGE = "transfer_gain.json", "transfer.html"


def transfer(
    *,
    teacher: Path,
    student: str,
    task: Sequence[str],
    out: Path,
    manifest: Path | None = None,
    shards: str | None = None,
    method: str = "logits",
    source: Sequence[str] = (),
    weight: float = 1.0,
    prompts: str | None = None,
    checkpoint: str = "none",
    architecture: Path | str | None = None,
    config: Path | str = "transfer",
    kind: Sequence[str] = (),
    classes: Sequence[str] = (),
    labels: float = 1.0,
    seeds: int = 3,
    bootstrap: int = 1000,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    device: str | None = None,
    precision: str | None = None,
    cache: Path | None = None,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plugins: Sequence[str] = (),
    fresh: bool = False,
    track: bool = True,
) -> Path | int:
    """Trains a student of one modality with and without a teacher of others, and keeps the one that is shown to be better.

    Args:
        teacher: run folder of a model that reads other modalities.
        student: the modality that the student reads, such as xray.
        task: a label column without `label_`; may be given several times.
        out: run folder of the student that is kept, with transfer_gain.json and transfer.html.
        manifest: the study table, CSV or Parquet.
        shards: in place of a manifest, the folder or URL that medssml prepare --shards wrote.
        method: logits, privileged, features, relations, contrast, cyclic, hallucination, co-training; without a pair prototypes,
            anchors, moments or pseudo-pairs.
        source: what the teacher is shown; all that it reads but the student's modality by default.
        weight: of the transfer beside labels of weight 1.
        prompts: for anchors: file of TASK: {CLASS: sentence or list of sentences}, or a shipped name.
        checkpoint: run folder whose weights students begin with; none for new weights.
        architecture: pretraining config with an encoder of the student's modality; the teacher's own by default.
        config: settings: a file, or a shipped name; steps are counted.
        kind: TASK=binary, multiclass or regression, or regression:UNIT, where cells do not say it.
        classes: TASK=a,b,c: its classes in their order, of two the last is the positive one.
        labels: share of the student's labelled training subjects whose labels it may see.
        seeds: pairs of students.
        bootstrap: resamples of the subjects.
        overrides: any key of the config, as KEY.PATH=VALUE; may be given several times.
        seed: of the first pair: weights, order, augmentation, choice of labels; the next ones follow.
        device: auto, cpu or cuda.
        precision: auto, 32 or bf16-mixed.
        cache: folder of prepared studies; MEDSSML_CACHE, or beside the run, by default.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plugins: a package of yours that classes may come from; may be given several times.
        fresh: start over, in the place of going on where the same command stopped.
        track: log to MLflow, every student below the transfer.

    Returns:
        the run folder; an exit code where a training was stopped (75, 130).

    Raises:
        ValueError: no study is seen by both, the teacher does not know a task or saw subjects that are to judge it, or a wrong
            key. medssml.manifest.table_text.ManifestError: a wrong table. RunFolderError: the folder holds another run.
    """
    from medssml.bounds import bounded
    from medssml.model import MultimodalModel
    from medssml.predictor import load_transforms
    from medssml.runs import console
    from medssml.runs.cache_place import cache_place
    from medssml.runs.inference import FEWEST_RESAMPLES, weights_hash
    from medssml.runs.inputs import refuse_overlap
    from medssml.runs.labels import balanced_weights
    from medssml.runs.obstructed import obstructed
    from medssml.runs.run_folder import RunFolder
    from medssml.runs.transfer_bench import Bench, sentence_batches
    from medssml.runs.transfer_tracking import tracked
    from medssml.verbs.pretrain import inputs

    bounded("--seeds", seeds, least=1)
    bounded("--weight", weight, above=0)
    bounded("--bootstrap", bootstrap, least=FEWEST_RESAMPLES)
    told = {"device": device, "precision": precision}
    settings = _settings(config, overrides, seed, told, plugins)
    pupil = _student(student, teacher, checkpoint, architecture, plugins)
    guide = MultimodalModel.load(teacher, plugins)
    shown, tasks = shown_to(guide, student, source), [task] if isinstance(task, str) else list(task)
    refuse_unknown(guide, tasks, method)
    folder, place = RunFolder(out), cache_place(cache, out)
    folder.tags = {"medssml.verb": "transfer", "medssml.config": Path(config).stem}
    begun = None if checkpoint == "none" else checkpoint
    refuse_overlap(
        folder.path, {**inputs(manifest, shards, data_root, place), "--teacher": teacher, "--checkpoint": begun}
    )
    table, prepared = _table(
        manifest, shards, settings, [student, *shown], place, data_root, allow_outside, kind, classes, out
    )
    before = _seen(table, teacher, begun)
    table, damages, suffered = obstructed(table, settings.data.obstacles, plugins)
    studies = _studies(table, student, shown, tasks, labels, settings.seed, method)
    taught = {
        "student": student, "method": method, "weight": weight, "source": shown, "taught_by": weights_hash(teacher),
        "prompts": _prompts(prompts, table, tasks, method),
    }  # fmt: skip
    whole = _whole(settings, tasks, labels, [*kind, *classes], begun, {**taught, "seeds": seeds})
    if folder.done and not fresh:
        folder.begin(whole.written(), table.sha256)
        console.say(f"{out} is done already; fix: --fresh starts over")
        console.tell({"run": str(folder.path), "status": "done before"})
        return folder.path
    sentences = sentence_batches(guide, load_transforms(teacher, plugins), whole.prompts)
    weights = balanced_weights(studies.alone, tasks) if settings.class_weights == "balanced" else {}
    bench = Bench(
        guide,
        pupil,
        whole,
        studies,
        weights,
        before,
        _transforms(teacher, shown, plugins),
        folder,
        prepared,
        tuple(plugins),
        sentences,
        track,
        damages,
        suffered,
    )
    bench.refuse()
    _begin(bench, table, fresh=fresh)
    with tracked(bench):
        return _run(bench, manifest, bootstrap)


def _settings(
    config: Path | str, overrides: Sequence[str], seed: int | None, told: dict[str, Any], plugins: Sequence[str]
) -> Finetuning:
    """The settings of a student's training.

    Raises:
        medssml.config.ConfigError: a wrong key. ValueError: the two students would not take the same steps, or what judges the
            transfer would choose between weights before.
    """
    from medssml.config import resolved_config
    from medssml.runs.training_config import FinetuneConfig, Finetuning, with_precision
    from medssml.schema import typed
    from medssml.shipped_configs import config_path
    from medssml.verbs.pretrain import trainer_overrides

    given = [*overrides, *trainer_overrides(seed=seed, **told)]
    found = typed(Finetuning, resolved_config(config_path(config, "finetune"), FinetuneConfig, given, plugins)[0])
    if found.fusion is not None:
        raise ValueError("a student reads one modality, which no other fusion joins to anything; fix: leave fusion out")
    if found.trainer.max_steps is None or found.trainer.max_epochs is not None:
        raise ValueError(
            "students with and without transfer take the same number of steps, and their epochs differ; fix: "
            "trainer.max_steps, without max_epochs"
        )
    if found.trainer.validate_every:
        raise ValueError(
            "the validation studies decide on the transfer and on nothing before it; fix: trainer.validate_every=0"
        )
    if found.teacher is not None:
        raise ValueError("the teacher of a transfer is --teacher; fix: leave teacher out of the student's config")
    if found.unlabelled:
        raise ValueError(
            "a transfer shows studies without a label by itself; fix: leave unlabelled out of the student's config"
        )
    return with_precision(found)


def shown_to(teacher: MultimodalModel, student: str, source: Sequence[str]) -> list[str]:
    """What the teacher is shown: `source`, or all that it reads but the student's modality.

    Raises:
        ValueError: it reads nothing else, or not what was asked for.
    """
    asked = [source] if isinstance(source, str) else list(source)
    unread = [name for name in asked if name not in teacher.modalities]
    if unread or student in asked:
        raise ValueError(
            f"--source {', '.join(unread) or student}: the teacher reads {', '.join(teacher.modalities)}, and is shown what "
            f"the student is not; fix: other modalities"
        )
    found = asked or [name for name in teacher.modalities if name != student]
    if not found:
        raise ValueError(
            f"the teacher reads {student} alone: it knows nothing that the student is not shown; fix: another"
        )
    return found


def refuse_unknown(teacher: MultimodalModel, tasks: Sequence[str], method: str) -> None:
    """Refuses a method that asks the teacher for answers that it does not have.

    Raises:
        ValueError: no such method, or with the tasks.
    """
    from medssml.transfer.methods import METHODS, transfer_called

    missing = [task for task in tasks if task not in teacher.tasks]
    if transfer_called(method).asks_answers and missing:
        others = [name for name, kind in METHODS.items() if not kind.asks_answers]
        raise ValueError(
            f"the teacher does not know {', '.join(missing)}, but {', '.join(teacher.tasks) or 'no task'}; fix: a teacher "
            f"that does, or --method {', '.join(others[:-1])} or {others[-1]}, which ask for no answer"
        )


def _student(
    student: str, teacher: Path, checkpoint: str, architecture: Path | str | None, plugins: Sequence[str]
) -> Student:
    """What students are built from: weights of --checkpoint, or the architecture of --architecture or of the teacher."""
    from medssml.runs.student import Student
    from medssml.shipped_configs import config_path

    if checkpoint != "none":
        if architecture is not None:
            raise ValueError("--architecture is for new weights; a checkpoint brings its own; fix: leave it out")
        return Student.of_run(student, checkpoint, "--checkpoint", plugins, trained=True)
    if architecture is not None:
        return Student.of_architecture(student, config_path(architecture, "pretrain"), plugins)
    return Student.of_run(student, teacher, "--teacher", plugins, trained=False)


def _table(
    manifest: Path | None,
    shards: str | None,
    settings: Finetuning,
    modalities: Sequence[str],
    cache: Path,
    data_root: Path | None,
    allow_outside: bool,
    kind: Sequence[str],
    classes: Sequence[str],
    out: Path,
) -> tuple[Manifest, Path | Shards]:
    from medssml.manifest.labels import declared_labels
    from medssml.privacy import pseudonyms
    from medssml.runs.source import source

    return source(
        manifest, shards, settings.shards, cache, modalities=modalities, ids=pseudonyms(settings.privacy.strict, out),
        data_root=data_root, allow_outside=allow_outside, tasks=declared_labels(kind, classes),
    )  # fmt: skip


def _seen(table: Manifest, teacher: Path, begun: str | None) -> dict[str, set[str]]:
    """Student -> the subjects that it knows before it learns, of the models that it begins with or is taught by.

    Raises:
        ValueError: subjects that are to judge it are among them.
    """
    from medssml.checkpoint import model_folder
    from medssml.runs.modality_account import trained_subjects
    from medssml.runs.transfer_bench import ALONE, TAUGHT
    from medssml.runs.transfer_studies import refuse_seen

    known: dict[str, set[str]] = {}
    for flag, run in (("--teacher", teacher), ("--checkpoint", begun)):
        known[flag] = set() if run is None else set(trained_subjects(model_folder(run).parent))
        if run is not None:
            refuse_seen(table, known[flag], flag)
    return {ALONE: known["--checkpoint"], TAUGHT: known["--checkpoint"] | known["--teacher"]}


def _prompts(given: str | None, table: Manifest, tasks: Sequence[str], method: str) -> Prompts:
    """The sentences of the tasks; none for a method that reads none.

    Raises:
        ValueError: sentences for a method that reads none, or none for one that does.
            medssml.config.ConfigError: of another form.
    """
    from medssml.runs.prompts import prompts_of

    if (given is None) != (method != "anchors"):
        raise ValueError("--prompts are the sentences of --method anchors; fix: both of them, or neither")
    found = prompts_of(given, table, tasks)
    if given is not None and (missing := [task for task in tasks if task not in found]):
        raise ValueError(f"no prompts for {', '.join(missing)}; fix: sentences of its classes, or another --task")
    return found


def _studies(
    table: Manifest,
    student: str,
    source: Sequence[str],
    tasks: Sequence[str],
    labels: float,
    seed: int,
    method: str,
) -> TransferStudies:
    from medssml.runs.labels import (
        chosen_tasks,
        label_account,
        labelled_studies,
        learnable,
        say_account,
        without_discarded,
    )
    from medssml.runs.transfer_studies import transfer_studies
    from medssml.transfer.methods import transfer_called

    asked = chosen_tasks(table, tasks)
    table = without_discarded(table, asked)
    own = table.filter(table.present[:, table.modalities.index(student)]) if student in table.modalities else None
    if own is None or len(own) == 0:
        raise ValueError(f"no study has {student}; fix: a manifest with files for it")
    chosen = labelled_studies(own, asked, labels, seed=seed)
    kind, known = transfer_called(method), set(chosen.split("train").study_ids)
    found = transfer_studies(table, student, source, asked, known, paired=kind.paired, lone=kind.lone)
    account = label_account(found.alone, asked)
    say_account(account)
    learnable(account, every=False)
    return found


def _whole(
    settings: Finetuning,
    tasks: Sequence[str],
    labels: float,
    targets: Sequence[str],
    begun: str | None,
    taught: dict[str, Any],
) -> Transferring:
    from medssml.runs.inference import weights_hash
    from medssml.runs.training_config import Transferring

    start = "scratch" if begun is None else weights_hash(begun)
    said: dict[str, Any] = {"tasks": list(tasks), "labels": labels, "start": start, "targets": list(targets)}
    return Transferring(**{**vars(settings), **said, **taught})


def _transforms(teacher: Path, source: Sequence[str], plugins: Sequence[str]) -> dict[str, Any]:
    from medssml.predictor import load_transforms

    return {name: transform for name, transform in load_transforms(teacher, plugins).items() if name in source}


def _begin(bench: Bench, table: Manifest, *, fresh: bool) -> None:
    """Opens the run folder; `fresh` removes what an earlier run left."""
    import shutil

    from medssml.runs.transfer_bench import FITS

    if fresh:
        shutil.rmtree(bench.folder.path / FITS, ignore_errors=True)
        for name in (RESULT, PAGE):
            (bench.folder.path / name).unlink(missing_ok=True)
    bench.folder.begin(bench.config.written(), table.sha256, fresh=fresh)
    bench.folder.started()


def _run(bench: Bench, manifest: Path | None, bootstrap: int) -> Path | int:
    """Trains all pairs, compares them, says what was found, and keeps one student."""
    from medssml import provenance
    from medssml.files import write_json
    from medssml.reports.transfer_page import write_transfer_page
    from medssml.runs import console
    from medssml.runs.transfer_bench import ALONE, TAUGHT, best_seed
    from medssml.runs.transfer_result import transfer_result
    from medssml.runs.transfer_tracking import concluded, stopped
    from medssml.transfer.gain import gains, gate

    seeds = [bench.config.seed + place for place in range(bench.config.seeds)]
    for seed in seeds:
        for arm in (ALONE, TAUGHT):
            console.say(f"student {arm}, seed {seed}")
            if code := bench.fit(seed, arm):
                stopped(bench)
                return code
    judged, tested = bench.answers("val", seeds), bench.answers("test", seeds)
    decision = gate(judged, n=bootstrap, seed=bench.config.seed)
    chosen = best_seed(judged, seeds, taught=decision.kept)
    found = gains(tested, n=bootstrap, seed=bench.config.seed)
    result = transfer_result(bench, manifest, found, decision, seeds, chosen, bootstrap)
    write_json(bench.folder.path / RESULT, result)
    provenance.record(bench.folder.path, "transfer", bench.config.seed)
    page = write_transfer_page(bench.folder.path / PAGE, result)
    concluded(bench, result, bench.folder.path / RESULT, page)
    bench.keep(chosen, TAUGHT if decision.kept else ALONE)
    _say(result)
    console.tell({"run": str(bench.folder.path), "page": str(page), "status": "done", "gate": result["gate"]})
    return bench.folder.path


def _say(result: dict[str, Any]) -> None:
    """A line per task, and the verdict."""
    from medssml.reports import words
    from medssml.reports.results import estimate
    from medssml.runs import console

    rows = []
    for task, entry in result["tasks"].items():
        if "reason" in entry:
            console.warn(f"{task}: no gain can be told: {entry['reason']}")
            continue
        parts = [words.interval(estimate(entry[part])) for part in ("without", "transfer", "gain")]
        rows.append((task, words.metric(entry["metric"]), *parts, entry["n"]))
    if rows:
        console.table(rows, ("task", "metric", "alone (95 %)", "taught (95 %)", "gain (95 %)", "n"))
    gain = words.interval(estimate(result["gate"]["gain"]))
    console.say(f"on validation studies: a gain of {gain}; {result['gate']['reason']}")
    console.say(f"kept: the student {result['kept']['student']} of seed {result['kept']['seed']}")
