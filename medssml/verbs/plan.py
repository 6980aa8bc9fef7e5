"""medssml plan: from the headers of a cohort's files to a pretraining config, with its reasons, memory and time."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssml.runs import console

if TYPE_CHECKING:
    import numpy as np

    from medssml.manifest.manifest import Manifest
    from medssml.runs.plan import Plan

#: Share of the memory that a training may take.
_SHARE = 0.7


def plan(
    manifest: Path,
    *,
    out: Path | None = None,
    device: str = "auto",
    memory_gib: float | None = None,
    files: int = 200,
    measure: bool = True,
    data_root: Path | None = None,
    allow_outside: bool = False,
    workers: int = 2,
    seed: int = 0,
) -> dict[str, Any]:
    """Crop, spacing, lengths, objectives, batch and time of a pretraining, from the sizes and the coverage of a cohort.

    Reads headers only, then takes a few steps on one batch to measure memory and time. Every choice is shown with what was
    found and why. The config that --out writes is run by medssml pretrain as it is.

    Args:
        manifest: the study table, CSV or Parquet.
        out: the config to write, such as plan.yaml; none is written without it.
        device: auto, cpu or cuda: what the training will run on.
        memory_gib: memory that the training may take; by default most of the device's.
        files: most files of each modality whose headers are read.
        measure: take a few steps of training for memory and time; the files of one batch are read whole.
        data_root: what the paths of the manifest are relative to; its own folder by default.
        allow_outside: accept paths that leave the data root.
        workers: processes that read headers.
        seed: of the choice of files.

    Returns:
        coverage, found (quartiles of each property), choices, config, and what was measured: parameters, seconds_per_step,
        steps, seconds, peak_memory_gib.

    Raises:
        medssml.manifest.table_text.ManifestError: a wrong table. ValueError: nothing that can be planned for.
    """
    from medssml.bounds import bounded
    from medssml.files import refuse_overwriting, require_ending
    from medssml.manifest.manifest import Manifest
    from medssml.runs.inference import chosen_device
    from medssml.runs.plan import plan as planned
    from medssml.runs.source import say_saved, say_split

    bounded("--files", files, least=1)
    bounded("--workers", workers, least=0)
    bounded("--memory-gib", memory_gib, above=0)
    require_ending("--out", out, ".yaml", ".yml")
    refuse_overwriting("--out", out, manifest)
    where = chosen_device(device).split(":")[0]
    table = Manifest.read(manifest, data_root, None, allow_outside)
    say_saved(table, Path(manifest))
    say_split(table)
    measured = _measured(table, files, workers, seed)
    made = planned(table, measured, _features(table), where)
    _show(table, made)
    result = {
        "coverage": table.coverage(),
        "found": {name: {what: _quartiles(v) for what, v in found.items()} for name, found in measured.items()},
        "choices": [choice._asdict() for choice in made.choices],
        "config": made.config,
    }
    if measure:
        result |= _rehearsed(made, table, where, memory_gib)
    if out is not None:
        result["written"] = str(_write(out, made, Path(manifest), result))
        given = ["--manifest", str(manifest), *(["--data-root", str(data_root)] if data_root else [])]
        outside = ["--allow-outside"] if allow_outside else []
        command = ["medssml", "pretrain", "--config", str(out), *given, *outside, "--out", "runs/pretrain"]
        console.say(f"written: {out}; next: {shlex.join(command)}")
    else:
        console.say("fix what you know better; --out plan.yaml writes the config")
    return result


def _measured(table: Manifest, most: int, workers: int, seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Modality -> property -> values, of at most `most` files of each, and of reports that stand in the table."""
    import numpy as np

    from medssml.checks.cohort_check import examine
    from medssml.checks.distributions import properties
    from medssml.randomness import hash64
    from medssml.runs.progress import Progress

    order = np.argsort([hash64(str(study), seed) for study in table.study_ids], kind="stable")
    chosen = np.zeros(len(table), dtype=bool)
    for column in range(len(table.modalities)):
        having = order[table.present[order, column]]
        chosen[having[:most]] = True
    few = table.filter(chosen)
    examined = examine(few, workers=workers, progress=Progress("headers"), whole=False)
    found: dict[str, dict[str, np.ndarray]] = {}
    for one in properties(examined.files):
        found.setdefault(one.modality, {})[one.name] = one.values
    inline = few.table.get("report_text")
    if inline is not None and (inline != "").any():
        words = np.array([len(text.split()) for text in inline[inline != ""]], dtype=np.float64)
        before = found.setdefault("report", {}).get("length, words", np.empty(0))
        found["report"]["length, words"] = np.concatenate([before, words])
    unread = sum(problem.action == "quarantined" for problem in examined.problems)
    if unread:
        console.warn(f"{unread} of {len(examined.files)} files cannot be used; fix: medssml check lists them")
    return found


def _features(table: Manifest) -> list[str]:
    """Names of the laboratory values: of the columns table_<name>, else of the first files."""
    from medssml.manifest.columns import inline_columns
    from medssml.readers import ReadError, read_table

    columns = [name for name in inline_columns("table", table.table.columns) if name != "table"]
    if columns or "table" not in table.modalities:
        return [name.removeprefix("table_") for name in columns]
    names: dict[str, None] = {}
    for path in [path for path in table.paths("table") if path is not None][:50]:
        try:
            names |= dict.fromkeys(read_table(path).values)
        except ReadError:
            continue  # `medssml check` lists it
    return list(names)


def _quartiles(values: np.ndarray) -> dict[str, float]:
    import numpy as np

    low, first, middle, third, high = np.percentile(values, [0, 25, 50, 75, 100])
    return {"files": len(values), "min": low, "25 %": first, "median": middle, "75 %": third, "max": high}


def _show(table: Manifest, made: Plan) -> None:
    coverage = table.coverage()
    console.say("")
    rows = [(name or "(none)", n, coverage["train"].get(name, 0)) for name, n in list(coverage["all"].items())[:12]]
    console.table(rows, ("modalities", "studies", "train"))
    console.say("")
    console.table(made.choices, ("what", "chosen", "found: median (5 % to 95 %)", "why"))
    console.say("")


def _rehearsed(made: Plan, table: Manifest, device: str, memory_gib: float | None) -> dict[str, Any]:
    """Memory and time of a step; the batch of the plan becomes smaller where they would not fit."""
    from medssml.config import load_config
    from medssml.runs.memory import GIB, memory_of_device, peak_memory
    from medssml.runs.plan import BATCH
    from medssml.runs.run_folder import to_yaml
    from medssml.runs.training_config import PretrainConfig, with_precision
    from medssml.verbs.pretrain import rehearsed

    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "plan.yaml"
        file.write_text(to_yaml(made.config), encoding="utf-8")
        config = with_precision(load_config(file, PretrainConfig, [f"trainer.device={device}"]))
        before = peak_memory(device) / GIB
        found = rehearsed(config, table, Path(scratch) / "cache", ())
    allowed = memory_gib if memory_gib is not None else _SHARE * memory_of_device(device) / GIB
    batch, needed = made.config["data"]["batch_size"], found["peak_memory_gib"]
    if needed > allowed:
        share = max(0.0, allowed - before) / max(needed - before, 1e-9)
        smaller = max(2, 2 ** int(max(1.0, batch * share)).bit_length() // 2)
        made.config["data"]["batch_size"] = smaller
        why = f"a batch of {batch} takes {needed:.1f} GiB of {allowed:.1f} allowed"
        made.choices[:] = [c._replace(chosen=str(smaller), why=why) if c.what == BATCH else c for c in made.choices]
        console.warn(f"{why}: planned with {smaller}")
    return {"measured": found, "memory_allowed_gib": allowed}


def _write(out: Path, made: Plan, manifest: Path, result: Mapping[str, Any]) -> Path:
    """The config, its reasons above it as comments."""
    from medssml.files import write_text
    from medssml.runs.run_folder import to_yaml

    said = [f"# Planned by medssml plan for {manifest.name}; run it: medssml pretrain --config {out.name} ..."]
    said += [f"# {c.what}: {c.chosen}; {c.why}{f' (found: {c.found})' if c.found else ''}" for c in made.choices]
    found = result.get("measured")
    if found:
        said.append(
            f"# measured on {found['device']}: {found['seconds_per_step']:.2g} s per step, "
            f"{console.duration(found['seconds'])} in all, {found['peak_memory_gib']:.1f} GiB"
        )
    return write_text(out, "\n".join([*said, to_yaml(made.config)]))
