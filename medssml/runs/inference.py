"""What the verbs that use a trained model have in common: device, studies, problems, and what lies in a run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

    from medssml.data.prepared_studies import PreparedStudies
    from medssml.data.shard_dataset import Shards
    from medssml.evaluation.encoded_studies import EncodedStudies
    from medssml.manifest.labels import Label
    from medssml.manifest.manifest import Manifest
    from medssml.predictor import Predictor
    from medssml.privacy import Pseudonyms

#: Resamples below which the ends of a 95 % interval are no ends: one in 20 lies outside.
FEWEST_RESAMPLES = 20


def chosen_device(device: str) -> str:
    """ "cpu" or "cuda"; auto = cuda where there is one.

    Raises:
        ValueError: unknown, or there is no such device.
    """
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device.split(":")[0] not in ("cpu", "cuda"):
        raise ValueError(f"device {device!r} is unknown; accepted: auto, cpu, cuda")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("this machine has no CUDA device that torch can use; fix: --device cpu")
    return device


def asked_tasks(task: str | Sequence[str], *known: Sequence[str]) -> list[str]:
    """The tasks that were asked for, each once; all of the first model's by default, or where `all` is said.

    Args:
        known: the tasks of each model that is asked.

    Raises:
        KeyError: one that a model does not have, or it has none.
    """
    from medssml.schema import nearest

    names = list(dict.fromkeys([task] if isinstance(task, str) else task))
    names = list(known[0]) if names in ([], ["all"]) else names
    for tasks in known:
        if not tasks:
            raise KeyError("this model is pretrained only and predicts nothing; fix: medssml finetune first")
        for name in names:
            if name not in tasks:
                near = nearest(name, tasks)
                known_here = near if "did you mean" in near else f"; it has {', '.join(tasks)}"
                raise KeyError(f"the model has no task {name!r}{known_here}")
    return names


def result_ids(
    manifest: str | Path, *, plain: bool = False, out: Path | None = None, truth: Path | None = None
) -> Pseudonyms:
    """What studies are called in results: keyed hashes, or the ids themselves where `plain` asks for them or the studies are
    simulated, which their truth says: there is nobody to protect, and the truth goes by ids.

    Args:
        out: the folder of results that the key must not lie in.
        truth: of simulated studies; by default truth.csv beside the manifest, if it is there.

    Raises:
        PrivacyError: as `pseudonyms`.
    """
    from medssml.evaluation.bayes import find_truth
    from medssml.privacy import pseudonyms

    return pseudonyms(not plain and truth is None and find_truth(manifest) is None, out)


def read_studies(
    manifest: Path,
    predictor: Predictor,
    data_root: Path | None,
    allow_outside: bool,
    ids: Pseudonyms,
    tasks: Mapping[str, str | Label] | None = None,
    labels: bool = True,
) -> Manifest:
    """The manifest, with the columns that the model reads as its modalities.

    Args:
        tasks: what is said of tasks that the model does not have.
        labels: False where they are not needed: what is wrong with them is said, and refuses nothing.

    Raises:
        medssml.manifest.table_text.ManifestError: a wrong table. ValueError: it has none of the model's modalities.
    """
    from medssml.manifest.columns import inline_columns
    from medssml.manifest.manifest import Manifest
    from medssml.manifest.table_text import read_raw
    from medssml.runs.source import say_saved

    raw = read_raw(manifest)
    columns = set(raw.cells.columns)
    own = [m for m in predictor.modalities if m in columns or inline_columns(m, columns)]
    if not own:
        raise ValueError(f"{raw.path.name} has none of the columns {list(predictor.modalities)} that this model reads")
    known = {name: label for name, label in _known_labels(predictor).items() if f"label_{name}" in columns}
    said = {**_agreeing(tasks or {}, known), **known}
    studies = Manifest.read(raw, data_root, own, allow_outside, tasks=said, ids=ids, labels=labels)
    say_saved(studies, raw.path)
    if not labels:
        _say_unknown(studies, known, raw.path.name)
    return studies


def _agreeing(said: Mapping[str, str | Label], known: Mapping[str, Label]) -> Mapping[str, str | Label]:
    """What --kind and --classes say of tasks, unless that is at odds with what the model was trained for.

    Raises:
        ValueError: with both.
    """
    for task in said.keys() & known.keys():
        given, own = said[task], known[task]
        kind, classes = (given, ()) if isinstance(given, str) else (given.kind, given.classes)
        if kind != own.kind or (classes and own.classes and classes != own.classes):
            named = f" of {', '.join(own.classes)}" if own.classes else ""
            raise ValueError(
                f"--kind, --classes: the model was trained for {task} as {own.kind}{named}; fix: leave {task} out of both"
            )
    return said


def _known_labels(predictor: Predictor) -> dict[str, Label]:
    """A target is what the model was trained for, whatever the cells of a later table look like."""
    return {name: task.label for name, task in predictor.model.tasks.items()}


def _say_unknown(studies: Manifest, known: Mapping[str, Label], name: str) -> None:
    """Says which labels the model does not know, in a table whose labels are not needed."""
    from medssml.manifest.labels import parse_labels
    from medssml.runs import console

    table = studies.table[[f"label_{task}" for task in known]]
    for task in known:
        faults = [fault for fault in parse_labels(table, known)[1] if fault[1] == f"label_{task}"]
        if faults:
            row, column, reason = faults[0]
            more = f", and {len(faults) - 1} more" if len(faults) > 1 else ""
            console.warn(f"{name}, row {row}{more}, {column}: {reason.split('; fix:')[0]}; labels are not needed here")


def open_studies(
    manifest: Path | None,
    shards: str | None,
    predictor: Predictor,
    cache: Path,
    *,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plain_ids: bool = False,
    out: Path | None = None,
    truth: Path | None = None,
    tasks: Mapping[str, str | Label] | None = None,
    labels: bool = True,
) -> tuple[Manifest, Path | Shards]:
    """The studies that a model is asked about, of a table or of prepared shards, and where what is prepared of them lies.

    Args:
        tasks, labels: as `read_studies`.

    Raises:
        as `read_studies` and `result_ids`. ValueError: both or neither. medssml.store.shards.ShardError: no such shards.
    """
    from medssml.runs.source import one_of

    one_of(manifest, shards, data_root, allow_outside)
    if manifest is not None:
        ids = result_ids(manifest, plain=plain_ids, out=out, truth=truth)
        return read_studies(manifest, predictor, data_root, allow_outside, ids, tasks, labels), cache
    from medssml.data.shard_dataset import Shards, ShardSettings
    from medssml.privacy import pseudonyms

    # In the order of the shards one is open at a time.
    opened = Shards(str(shards), cache / "shards", ShardSettings(window=1))
    own = [m for m in predictor.modalities if m in opened.index.modalities]
    if not own:
        raise ValueError(f"the shards have none of {list(predictor.modalities)} that this model reads")
    known = {name: label for name, label in _known_labels(predictor).items() if f"label_{name}" in opened.index.table}
    ids = pseudonyms(not plain_ids and truth is None, out)
    return opened.index.manifest(own, ids, {**_agreeing(tasks or {}, known), **known} if labels else None), opened


def encode_training(
    table: Manifest, predictor: Predictor, store: Path | Shards, device: str, workers: int
) -> tuple[PreparedStudies, EncodedStudies]:
    """The training studies of a table, as far as their files can be read, and what the encoders give of them.

    Raises:
        ValueError: there is none.
    """
    from medssml.data.prepared_studies import prepare_studies
    from medssml.evaluation.encoded_studies import encode_studies
    from medssml.runs import console

    train = table.split("train")
    if len(train) == 0:
        raise ValueError("no training study; fix: the split column")
    with console.step(f"encoding {len(train)} studies"):
        cohort = prepare_studies(train, predictor.transforms, store, num_workers=workers)
        return cohort, encode_studies(predictor.model, cohort.batches(), device)


def conclude(parts: Sequence[PreparedStudies], out: Path, verb: str) -> Path | int:
    """Lists what was left out, says so, and returns `out`, or exit code 4 where that was too much.

    Accepted and left out are the rows that were asked for. The list of an earlier call does not stay where there is nothing
    to list now; that of another verb does.

    Args:
        parts: the studies that were asked for, none of them in two parts.
        out: folder, or file in the folder, of the results.
        verb: who asks.
    """
    from medssml.manifest.problems import own_list, write_problems
    from medssml.manifest.quarantine import Allowance
    from medssml.runs import console

    problems = [problem for part in parts for problem in (*part.problems, *part.nothing)]
    listed = own_list(out if out.is_dir() else out.parent, verb)
    if problems or listed.exists():
        write_problems(problems, listed, verb)
    rows, asked = sum(part.quarantined for part in parts), sum(part.asked for part in parts)
    empty = sum(part.empty for part in parts)
    told = {"asked": asked, "left_out": {"failing files": rows, "nothing to read": empty}}
    console.tell({"out": str(out), "studies": told} | ({"problems": str(listed)} if problems else {}))
    if empty:
        console.warn(f"{empty} of {asked} studies have nothing that this model reads: left out, see {listed.name}")
    if not rows:
        return out
    console.warn(
        f"{rows} of {asked} studies left out, as a file of theirs cannot be used: {listed.name} says which and why"
    )
    if excess := Allowance().excess(rows, asked):
        console.warn(f"{excess}; fix: mend the files named in {listed.name}")
        return 4
    return out


def say_hidden(count: int, asked: int, subset: str | None, lack: str = "nothing that the model reads") -> None:
    """Says how many studies were left out, as they have nothing of the subset that was to be shown, or else `lack`."""
    from medssml.runs import console

    if count:
        console.warn(f"{count} of {asked} studies have {f'none of --subset {subset}' if subset else lack}: left out")


def write_parquet(path: Path, table: pd.DataFrame) -> Path:
    """Writes a table, whole or not at all."""
    from medssml.files import whole

    with whole(path) as beside:
        table.to_parquet(beside, index=False)
    return path


def weights_hash(checkpoint: str | Path) -> str:
    """The first 16 hex digits of the SHA-256 of a model's weights."""
    from medssml.checkpoint import WEIGHTS, model_folder
    from medssml.files import sha256_of

    return sha256_of(model_folder(checkpoint) / WEIGHTS)[:16]
