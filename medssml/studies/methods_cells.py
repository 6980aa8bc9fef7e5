"""The parts of `medssml study methods`: which methods there are, and one cell of the grid. What is done is not done again."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from medssml.studies.cells import digest_of, kept_line

if TYPE_CHECKING:
    from medssml.runs.training_config import PretrainConfig

#: The config that the methods to be compared build on.
BASE = "small"
#: So that no figure depends on the processor, and each step has its own row in history.csv.
SHARED = ("trainer.max_epochs=null", "trainer.validate_every=0", "trainer.log_every=1", "trainer.precision=32")


@dataclass(frozen=True)
class Design:
    """What the cells share.

    Args:
        cache: prepared studies.
        studies: of the simulated cohort. missing: share of absent modalities. Neither where the studies are given.
        steps: of each pretraining.
        labels: shares of the labelled training subjects that probes are fitted on.
        tasks: label columns; all where there is none.
        bootstrap: resamples of subjects.
        device: of training; None = what the configs say.
        manifest: of own studies in the place of simulated ones; what its paths are relative to is `data_root`.
        base: the config that takes the place of `small` under the methods.
    """

    cache: Path
    studies: int | None
    missing: float | None
    steps: int
    labels: tuple[float, ...]
    tasks: tuple[str, ...]
    bootstrap: int
    device: str | None = None
    manifest: Path | None = None
    data_root: Path | None = None
    base: str = BASE

    def settings(self) -> dict[str, Any]:
        """What the answers of the study depend on, but for the configs, which each cell names."""
        from medssml.files import sha256_of

        names = ("studies", "missing", "steps", "labels", "tasks", "bootstrap")
        own = {} if self.manifest is None else {"manifest": sha256_of(self.manifest)}
        return {name: getattr(self, name) for name in names} | own

    def table_of(self, out: Path) -> tuple[Path, Path | None]:
        """The study table of the grid in `out`, and what its paths are relative to where that is not its folder."""
        return (manifest_of(out), None) if self.manifest is None else (self.manifest, self.data_root)

    @property
    def overrides(self) -> tuple[str, ...]:
        """What every pretraining has in place of what its config says."""
        return (f"trainer.max_steps={self.steps}", *SHARED)


@dataclass(frozen=True)
class Method:
    """A pretraining config. name: in results. path: of its file. overrides: what is set in it. config: what that comes to."""

    name: str
    path: Path
    overrides: tuple[str, ...]
    config: PretrainConfig

    @property
    def digest(self) -> str:
        """Tells a config from another one."""
        return digest_of(self.config.written())

    @property
    def sees_labels(self) -> bool:
        """Whether an objective learns from labels."""
        return any((node.get("init_args") or {}).get("tasks") for node in self.config.objectives)


def shipped_methods() -> list[str]:
    """The shipped pretraining configs that build on `small`, itself among them."""
    from medssml.shipped_configs import built_on

    return built_on(BASE, "pretrain")


def chosen_methods(asked: Sequence[str], design: Design) -> list[Method]:
    """The methods that were asked for, or all shipped ones, their configs read; `small` itself is then the base of the design.

    Raises:
        medssml.config.ConfigError: no such config, or a wrong one. ValueError: two of one name.
    """
    from medssml.config import load_config
    from medssml.runs.training_config import PretrainConfig
    from medssml.shipped_configs import config_path

    found: dict[str, Method] = {}
    for given in asked or shipped_methods():
        given = design.base if given == BASE else given
        name = Path(given).stem if Path(given).is_file() else given
        if name in found:
            raise ValueError(f"--methods names {name} twice; fix: once, or another file name")
        path = config_path(given, "pretrain")
        load_config(path, PretrainConfig)  # what is wrong in it is said with its own lines
        path, overrides = _on(config_path(design.base, "pretrain"), path)
        overrides = (*overrides, *design.overrides)
        found[name] = Method(name, path, overrides, load_config(path, PretrainConfig, overrides))
    return list(found.values())


def _on(base: Path, method: Path) -> tuple[Path, tuple[str, ...]]:
    """`base` and what to set in it: what the method says in the place of `small`. The method's own file where that is `base`."""
    from medssml.config import ConfigError
    from medssml.shipped_configs import config_path, shipped
    from medssml.yaml_lines import YamlError, above, read_with_base

    root = config_path(BASE, "pretrain")
    if base == root:
        return method, ()
    try:
        said, beneath = above(method, root, shipped), read_with_base(base, shipped)[0]
    except YamlError as error:
        raise ConfigError(str(error)) from None
    return (method, ()) if said is None else (base, tuple(_set(said, beneath)))


def _set(said: Mapping[str, Any], beneath: Any, under: str = "") -> Iterator[str]:
    """`KEY=VALUE` of each value that takes the place of another one; a class goes with its arguments, a list as a whole."""
    for key, value in said.items():
        was = beneath.get(key) if isinstance(beneath, Mapping) else None
        if isinstance(value, Mapping) and any("." in inner for inner in value):
            value = {**(was or {}), **value}  # keys with dots, which no path of keys can name
        elif isinstance(value, Mapping) and "class_path" not in value:
            yield from _set(value, was, f"{under}{key}.")
            continue
        yield f"{under}{key}={json.dumps(value)}"


def asked_of(tasks: Sequence[str], table: tuple[Path, Path | None] | None = None) -> list[str]:
    """The tasks that were asked for, or all: of a study table and what its paths are relative to, or of the simulated cohort.

    Raises:
        KeyError: no such task. ValueError: one whose labels are not 0 and 1, or a table without a test study.
    """
    from medssml.manifest.manifest import Manifest
    from medssml.phantom.causes import TASKS
    from medssml.schema import nearest
    from medssml.studies.cohort_fits import chosen_tasks

    if table is not None:
        read = Manifest.read(*table)
        if "test" not in read.splits:
            raise ValueError(f"{table[0].name} has no test study; fix: its column split, train, val or test")
        return chosen_tasks(read.table.fillna(""), tasks)
    for name in tasks:
        if name not in TASKS:
            raise KeyError(f"the simulated cohort has no task {name!r}{nearest(name, TASKS)}")
    return list(tasks) or list(TASKS)


def simulate(out: Path, design: Design) -> None:
    """The cohort, once; nothing where the studies are given."""
    from medssml.verbs.phantom import phantom

    manifest = manifest_of(out)
    if design.studies is not None and design.missing is not None and not manifest.exists():
        phantom(out=manifest.parent, studies=design.studies, missing=design.missing, preset="small")


def manifest_of(out: Path) -> Path:
    """The table of the simulated cohort."""
    return out / "cohort" / "manifest.csv"


def cell_file(out: Path, method: str, seed: int, ending: str) -> Path:
    """The line of a cell (json), or its answers (csv)."""
    return out / "cells" / f"{method.replace('/', '_')}-seed{seed}.{ending}"


def one_cell(out: Path, method: Method, seed: int, design: Design, tasks: Sequence[str]) -> dict[str, Any]:
    """The line of a method with a seed: what it learned, or why it cannot run, which is tried again each time.

    Raises:
        medssml.runs.run_folder.RunFolderError: the cell was measured with another config.
    """
    file = cell_file(out, method.name, seed, "json")
    identity = {"method": method.name, "seed": seed, "config": method.digest}
    return kept_line(file, identity, lambda: _measured(out, method, seed, design, tasks))


def _measured(out: Path, method: Method, seed: int, design: Design, tasks: Sequence[str]) -> dict[str, Any]:
    """Pretrains and probes one cell; its answers go to a table of their own."""
    from medssml.files import write_csv
    from medssml.predictor import load
    from medssml.runs.memory import peak_memory, restart_peak
    from medssml.studies.methods_probes import Probed, moved, random_twin
    from medssml.studies.resume import unless_stopped
    from medssml.trainers.history import read
    from medssml.trainers.precision import device_type
    from medssml.verbs.pretrain import pretrain

    manifest, root = design.table_of(out)
    device = device_type(design.device or method.config.trainer.device)
    run = cell_file(out, method.name, seed, "json").with_suffix("")
    alone = restart_peak(device)
    started = time.process_time()
    done = pretrain(
        config=method.path, manifest=manifest, data_root=root, out=run, overrides=method.overrides, seed=seed,
        device=design.device, cache=design.cache, track=False, fresh=True,
    )  # fmt: skip
    unless_stopped(f"seed {seed}: {method.name}", done)
    used, peak = time.process_time() - started, peak_memory(device)
    history = read(run / "history.csv")
    model = load(run).model
    cohort = Probed.prepared(run, manifest, root, design.cache, device)
    answers = cohort.answers(model, random_twin(model, seed), tasks, design.labels)
    write_csv(cell_file(out, method.name, seed, "csv"), answers.assign(seed=seed))
    return {
        "steps": design.steps,
        "learns_from": moved(model, seed),
        "labels_seen": method.sees_labels,
        "loss": ends(history, "train/loss"),
        "terms": {name.split("/")[1]: ends(history, name) for name in terms(history)},
        "seconds": round(float(history[-1]["seconds"]), 1),
        "processor_seconds": round(used, 1),
        "peak_mib": round(peak / 2**20) if alone else None,
        "probes": probes(answers, design.bootstrap),
    }


def terms(history: Sequence[Mapping[str, float]]) -> list[str]:
    """The columns of a history that are losses of one objective."""
    names = dict.fromkeys(name for row in history for name in row)
    return [name for name in names if name.count("/") == 2 and name.startswith("train/") and name.endswith("/loss")]


def ends(history: Sequence[Mapping[str, float]], column: str) -> list[float]:
    """The means of a column over the first and over the last tenth of the run."""
    values = [row[column] for row in history if column in row]
    tenth = max(1, len(values) // 10)
    return [round(sum(part) / tenth, 5) for part in (values[:tenth], values[-tenth:])]


def probes(answers: pd.DataFrame, bootstrap: int) -> dict[str, Any]:
    """{labels: {task: {subset: {validation, test, random_validation, random_test, gain: [estimate, low, high]}}}}."""
    from medssml.statistics.bootstrap import paired_bootstrap
    from medssml.statistics.metrics import auroc, point

    found: dict[str, Any] = {}
    for (labels, task, subset), table in answers.groupby(["labels", "task", "subset"], sort=False):
        entry: dict[str, Any] = {}
        for split, name in (("val", "validation"), ("test", "test")):
            part = table.loc[table["split"] == split]
            y, score, random = (part[column].to_numpy(float) for column in ("y", "probability", "random"))
            if len(set(y)) < 2:
                continue
            entry |= {name: round(point(auroc, y, score), 4), f"random_{name}": round(point(auroc, y, random), 4)}
            if split == "test":
                gain = paired_bootstrap(auroc, y, score, random, part["subject"].to_numpy(), n=bootstrap)
                entry["gain"] = [v if v is None else round(v, 4) for v in (gain.estimate, gain.ci_low, gain.ci_high)]
        found.setdefault(f"{labels:g}", {}).setdefault(task, {})[subset] = entry
    return found
