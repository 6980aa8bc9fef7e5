"""medssml prepare: the part of the transforms that never changes, once, for all studies of a manifest."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from medssml.runs import console
from medssml.runs.progress import Progress

if TYPE_CHECKING:
    from medssml.data.dataset import StudyDataset
    from medssml.manifest.manifest import Manifest
    from medssml.manifest.problems import Problem
    from medssml.store.shards import Storage


class Stopped(Exception):
    """A signal came; what is prepared is kept."""

    exit_code = 75


def prepare(
    *,
    manifest: Path,
    config: Path | str | None = None,
    checkpoint: str | None = None,
    cache: Path | None = None,
    overrides: Sequence[str] = (),
    engine: Literal["local", "ray"] = "local",
    workers: int = 2,
    timeout_s: float = 600.0,
    shards: str | None = None,
    shard_mb: float = 64.0,
    plain_ids: bool = False,
    problems: Path | None = None,
    data_root: Path | None = None,
    allow_outside: bool = False,
    plugins: Sequence[str] = (),
) -> dict[str, Any]:
    """Reads, resamples and filters every file once and keeps the result, so that training only loads and crops.

    Training does so by itself where it has to; preparing beforehand finds every file that fails, and can use more
    processes or machines. The same command run again prepares what is new; two may run at the same time.

    Args:
        manifest: the study table, CSV or Parquet.
        config: a pretraining config, by path or shipped name: its transforms are used.
        checkpoint: in place of a config, a run folder or model folder: the transforms of its model are used.
        cache: folder of prepared studies; by default what MEDSSML_CACHE says, or a folder `cache` beside the run folder of
            --checkpoint, or runs/cache, where runs in `runs` look for it.
        overrides: any key of the config, as KEY.PATH=VALUE; may be given several times.
        engine: local, for processes on this machine; ray, for the machines of a Ray cluster (extra [ray]).
        workers: processes on this machine; 0 for none beside this one.
        timeout_s: s after which a file is given up.
        shards: also write the studies into shards, in this folder or at this URL (s3://bucket/cohort), for machines that have
            neither the files nor room for all of them; give the same to pretrain and finetune.
        shard_mb: MiB of one shard, about.
        plain_ids: ids in the shards as the manifest has them; by default they are keyed hashes.
        problems: where the list of files that fail goes; problems.csv in the cache by default.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        plugins: a package of yours that classes may come from; may be given several times.

    Returns:
        files of the manifest, new (not in the cache before), prepared (in the cache now), quarantined studies, seconds; with
        shards: shards, new_shards, sharded studies, shard_bytes. exit_code 4 where more studies are quarantined than 1 %
        or 5, of few studies 20 %.

    Raises:
        ValueError: neither or both of config and checkpoint. medssml.config.ConfigError: a wrong key or value.
        medssml.manifest.table_text.ManifestError: a wrong table. medssml.store.engines.MissingExtra: no Ray, or no
            package for the URL. medssml.store.shards.ShardError: a URL that cannot be used. Stopped: by SIGTERM.
    """
    from medssml.data.dataset import StudyDataset
    from medssml.data.prepare import prepare_all
    from medssml.files import private_folder, refuse_overwriting, require_ending
    from medssml.manifest.manifest import Manifest
    from medssml.manifest.problems import write_problems
    from medssml.runs.source import say_saved
    from medssml.store.cache import Cache
    from medssml.store.shards import Storage

    if workers < 0:
        raise ValueError(f"--workers is {workers}; fix: 0 or more")
    if not shard_mb > 0:
        raise ValueError(f"--shard-mb is {shard_mb:g}; fix: more than 0, such as 64")
    if not timeout_s > 0:
        raise ValueError(f"--timeout-s is {timeout_s:g}; fix: more than 0")
    if shards is None and plain_ids:
        raise ValueError("--plain-ids is of the ids in shards; fix: --shards, or leave it out")
    require_ending("--problems", problems, ".csv")
    refuse_overwriting("--problems", problems, manifest)
    storage = None if shards is None else Storage(shards)
    transforms = _transforms(config, checkpoint, overrides, plugins)
    place = _place(cache, checkpoint)
    table = Manifest.read(manifest, data_root, list(transforms), allow_outside)
    say_saved(table, manifest)
    dataset = StudyDataset(table, transforms, Cache(private_folder(place)))
    files = sum(len(dataset.present(index)) for index in range(len(dataset)))
    progress, started = Progress("files"), time.monotonic()
    with _stoppable():
        found = prepare_all(dataset, workers=workers, timeout_s=timeout_s, engine=engine, progress=progress)
        sharded = {} if storage is None else _write_shards(dataset, found, storage, shard_mb, plain_ids)
    written = write_problems(found, problems or place / "problems.csv")
    result = {
        "files": files,
        "new": progress.total,
        "prepared": files - len(found),
        "quarantined": len({problem.row for problem in found}),
        "seconds": round(time.monotonic() - started, 3),
        "problems": str(written),
        **sharded,
    }
    _conclude(result, found, written, place)
    return {**result, "exit_code": 4} if _too_many(table, found) else result


def _write_shards(
    dataset: StudyDataset, found: Sequence[Problem], storage: Storage, shard_mb: float, plain_ids: bool
) -> dict[str, Any]:
    """Writes the studies without a problem into shards, under the ids by which they may travel."""
    import dataclasses

    from medssml.data.dataset import StudyDataset
    from medssml.data.prepare import usable
    from medssml.data.shard_writer import write_shards
    from medssml.privacy import pseudonyms
    from medssml.readers.errors import human

    table = dataset.manifest.filter(usable(dataset, found)[0])
    coded = dataclasses.replace(table, ids=pseudonyms(not plain_ids, storage.folder))
    studies = StudyDataset(coded, dataset.transforms, dataset.cache)
    done = write_shards(studies, storage, shard_mb=shard_mb, progress=Progress("studies"))
    console.say(
        f"{done.studies:,} studies in {done.shards:,} shards ({human(done.nbytes)}) in {storage.url}, {done.new:,} of them new"
    )
    return {"shards": done.shards, "new_shards": done.new, "sharded": done.studies, "shard_bytes": done.nbytes}


def _place(cache: Path | None, checkpoint: str | None) -> Path:
    from medssml.runs.cache_place import RUNS, cache_of_model, cache_place

    return cache_place(cache, RUNS / "any") if checkpoint is None else cache_of_model(cache, checkpoint)


def _transforms(
    config: Path | str | None, checkpoint: str | None, overrides: Sequence[str], plugins: Sequence[str]
) -> Mapping[str, Any]:
    """Modality -> transform, of a config or of a trained model."""
    if (config is None) == (checkpoint is None):
        raise ValueError("prepare needs the transforms of a config or of a model; fix: give --config or --checkpoint")
    if config is None:
        from medssml.predictor import load_transforms

        if overrides:
            raise ValueError("--set changes a config, and --checkpoint has its transforms fixed; fix: leave out one")
        return load_transforms(str(checkpoint), plugins)

    from medssml.config import load_config
    from medssml.runs.training_config import PretrainConfig
    from medssml.shipped_configs import config_path
    from medssml.transforms.road import built_road

    nodes = load_config(config_path(config, "pretrain"), PretrainConfig, overrides, plugins).transforms
    return {name: built_road(name, part, plugins, f"transforms.{name}") for name, part in nodes.items()}


@contextmanager
def _stoppable() -> Iterator[None]:
    """Inside, SIGTERM ends the pass in an orderly way; outside the main thread Python allows no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Stopped("stopped by a signal, what is prepared is kept; fix: the same command continues")

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _conclude(result: Mapping[str, Any], found: Sequence[Problem], written: Path, cache: Path) -> None:
    for problem in found[:10]:
        console.warn(f"row {problem.row}, {problem.column}, {problem.file}: {problem.problem}; fix: {problem.fix}")
    if len(found) > 10:
        console.warn(f"and {len(found) - 10:,} more")
    console.say(
        f"{result['prepared']:,} of {result['files']:,} files prepared in {cache}, {result['new']:,} of them looked at now, "
        f"in {console.duration(result['seconds'])}"
    )
    console.say(f"{len(found):,} problem{'s' * (len(found) != 1)} listed in {written}")


def _too_many(table: Manifest, found: Sequence[Problem]) -> bool:
    """Whether more studies are left out than training would accept without a word."""
    from medssml.manifest.quarantine import Allowance

    excess = Allowance().excess(len({problem.row for problem in found}), len(table))
    if excess is not None:
        console.warn(f"{excess}; fix: mend the files named in problems.csv")
    return excess is not None
