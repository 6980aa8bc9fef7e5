"""`medssml demo`: the whole story on a simulated cohort, offline, on a CPU."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medssml.runs import console

STATE = "demo.json"
#: Simulated studies have no patients: the demo needs no key, and its results go by the ids of its cohort.
PLAIN = "privacy.strict=false"
#: Folder of the model without pretraining.
SCRATCH = "scratch"
#: Folders inside the run that only the demo writes.
OWN = ("cohort", "pretrain", SCRATCH, "transfer")


@dataclass(frozen=True)
class Scale:
    """How large the story is.

    studies: of the simulated cohort. pretrain, finetune: configs. labels: share of the labelled training subjects that
    fine-tuning sees. tasks: whose modality impact is worked out. resamples: of the bootstrap. taught: the task that a student of
    radiographs alone learns with and without a teacher of CT, from so large a share of the labels, in so many steps. raw: how
    training from scratch differs from fine-tuning, as it has nothing to keep: all of the model learns at one rate, from heads at
    random.
    """

    studies: int
    pretrain: str
    finetune: str
    labels: float
    tasks: tuple[str, ...]
    resamples: int
    taught: tuple[str, float, int]
    raw: tuple[str, ...] = ("optim.scales={}", "probe_first=false")


class Station(NamedTuple):
    """One step of the story: its name in demo.json, what it says, the verb, its arguments."""

    name: str
    says: str
    verb: Callable[..., Any]
    arguments: dict[str, Any]


TASKS = ("malignant", "effusion", "cardiomegaly", "seizure", "deterioration")
#: From scratch the demo's model gets a higher rate and more steps: at those of fine-tuning it would learn nothing.
RAW = ("optim.lr=1e-3", "optim.scales={encoders.ct: 3}", "probe_first=false", "trainer.max_steps=200")
FULL = Scale(3000, "small", "small", 0.1, TASKS, 1000, ("effusion", 0.02, 120), RAW)
QUICK = Scale(64, "smoke/pretrain", "smoke/finetune", 1.0, ("malignant",), 200, ("malignant", 1.0, 3))


def demo(*, out: Path | None = None, quick: bool = False, seed: int = 0, fresh: bool = False) -> Path | int:
    """Simulates a cohort, pretrains, fine-tunes on few labels with and without pretraining, evaluates, splits, reports.

    The cohort's true causes are known, so the report shows how far the model is from the best that is possible. What an
    earlier demo in the same folder has done is reused.

    Args:
        out: run folder; runs/demo, or runs/demo-quick with --quick, by default.
        quick: a small cohort and a tiny model: shows in seconds that everything works, learns next to nothing.
        seed: of the cohort, the weights and the order.
        fresh: start over, removing what an earlier demo left in the folder.

    Returns:
        the run folder, with report.html; an exit code where a step was stopped or refused.

    Raises:
        ValueError: the folder holds a demo with other settings.
    """
    import torch

    from medssml.bounds import bounded

    bounded("--seed", seed, least=0)
    # float32 in one thread, whatever the processor: bfloat16 takes so small a model four times as long, a second thread does not
    # make it faster, and another process loads the studies meanwhile.
    torch.set_num_threads(1)
    folder = out if out is not None else Path("runs/demo-quick" if quick else "runs/demo")
    scale = QUICK if quick else FULL
    story = Story(folder, {**json.loads(json.dumps(asdict(scale))), "seed": seed}, fresh=fresh)
    code = _tell(story, scale, seed)
    if code:
        return code
    _conclude(story, scale)
    return folder


def _conclude(story: Story, scale: Scale) -> None:
    """What was learned and what not, what it took, and what to do next."""
    from medssml.reports.results import read_results
    from medssml.reports.verdict import sentences
    from medssml.runs.memory import GIB, peak_of_processes

    console.say("")
    found, commands = sentences(read_results(story.folder)), next_commands(story.folder, scale)
    page = story.folder / "report.html"
    console.tell({"page": str(page), "verdicts": found, "seconds": story.done, "next": commands}, anew=True)
    for said in found:
        console.say(said)
    console.say("")
    if story.seconds:
        peak = peak_of_processes() / GIB
        console.say(f"this took {console.duration(story.seconds)} and {peak:.1f} GiB of memory at most")
    else:
        console.say("everything was done before; --fresh starts over")
    console.say(f"open {page} in a browser; then, for example:")
    for command in commands:
        console.say(f"  {command}")


def next_commands(run: Path, scale: Scale) -> list[str]:
    """Three commands that work as they stand, from the folder in which the demo was run."""
    from medssml.runs.cache_place import cache_place

    medssml = "medssml" if shutil.which("medssml") else os.path.relpath(Path(sys.executable).parent / "medssml")
    studies = f"--manifest {run / 'cohort' / 'manifest.csv'} --cache {cache_place(None, run)}"
    more = run.with_name(f"{run.name}-more")
    finetune = f"finetune --checkpoint {run / 'pretrain'} {studies} --config {scale.finetune}"
    pretrain = f"pretrain --config {scale.pretrain} {studies} --out {more / 'pretrain'}"
    return [
        f"{medssml} predict --checkpoint {run} {studies} --subset ct+report --out {more / 'predictions.csv'}",
        f"{medssml} {finetune} --task {scale.tasks[0]} --labels 1.0 --out {more / 'all-labels'}",
        f"{medssml} {pretrain} --set optim.lr=1e-3 --dry-run",
    ]


def _tell(story: Story, scale: Scale, seed: int) -> int:
    """Every station of the story through its verb; the first exit code that is not 0 ends it."""
    run = story.folder
    stations = [*_learning(run, scale, seed), *_judging(run, scale), *_teaching(run, scale, seed), *_reporting(run)]
    for number, (name, says, verb, arguments) in enumerate(stations, start=1):
        code = story.do(name, f"[{number}/{len(stations)}] {says}", verb, arguments)
        if code:
            return code
    return 0


def _learning(run: Path, scale: Scale, seed: int) -> list[Station]:
    """From nothing to two models of every task: one from the pretrained weights, one from scratch."""
    from medssml.runs.cache_place import cache_place
    from medssml.verbs.check import check
    from medssml.verbs.finetune import finetune
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    cohort, pretrained, recipe = run / "cohort", run / "pretrain", scale.pretrain
    simulated = {"out": cohort, "studies": scale.studies, "seed": seed, "preset": "small"}
    checked = {"manifest": cohort / "manifest.csv", "problems": cohort / "problems.csv"}
    shared = {"manifest": cohort / "manifest.csv", "cache": cache_place(None, run), "seed": seed, "precision": "32"}
    learning = shared | {"config": recipe, "out": pretrained, "overrides": [PLAIN]}
    tuning = shared | {"task": ["all"], "labels": scale.labels, "config": scale.finetune}
    kept = {"checkpoint": str(pretrained), "out": run, "overrides": [PLAIN]}
    raw = {"checkpoint": "none", "architecture": recipe, "out": run / SCRATCH, "overrides": [*scale.raw, PLAIN]}
    few = f"on {scale.labels:.0%} of the labels"
    return [
        Station("cohort", f"simulate {scale.studies} studies", phantom, simulated),
        Station("check", "check every file", check, checked),
        Station("pretrain", "pretrain without labels", pretrain, learning),
        Station("finetune", f"fine-tune the pretrained model {few}", finetune, tuning | kept),
        Station("scratch", f"train the same model from scratch {few}", finetune, tuning | raw),
    ]


def _judging(run: Path, scale: Scale) -> list[Station]:
    """What the models can do, and what each modality does in the pretrained one."""
    from medssml.runs.cache_place import cache_place
    from medssml.runs.inference import FEWEST_RESAMPLES
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.impact import impact

    shared = {
        "manifest": run / "cohort" / "manifest.csv",
        "cache": cache_place(None, run),
        "bootstrap": scale.resamples,
    }
    pretrained = shared | {"checkpoint": str(run / "pretrain"), "out": run / "pretrain"}
    kept = shared | {"checkpoint": str(run), "out": run}
    # Of the model from scratch the answers are asked for: the gain has intervals of its own.
    raw = shared | {"checkpoint": str(run / SCRATCH), "out": run / SCRATCH, "bootstrap": FEWEST_RESAMPLES}
    return [
        Station(
            "retrieve", "find reports by their images", evaluate, pretrained | {"probes": False, "zero_shot": "phantom"}
        ),
        Station("evaluate", "evaluate every missing pattern", evaluate, kept | {"probes": False}),
        Station("evaluate-scratch", "the same without pretraining", evaluate, raw | {"probes": False}),
        Station("gain", "what pretraining is worth", _measure_gain, {"run": run, "resamples": scale.resamples}),
        Station("impact", "impact of each modality on each task", impact, kept | {"task": scale.tasks}),
    ]


def _teaching(run: Path, scale: Scale, seed: int) -> list[Station]:
    """What the model of all modalities, shown the CT, adds to a student that sees the radiograph alone."""
    from medssml.runs.cache_place import cache_place
    from medssml.verbs.transfer import transfer

    task, labels, steps = scale.taught
    students = {"teacher": run, "source": ["ct"], "student": "xray", "task": [task], "labels": labels, "seeds": 1}
    # Not tracked: the store of the story holds the models that it is about.
    learning = {
        "seed": seed, "precision": "32", "overrides": [f"trainer.max_steps={steps}", PLAIN], "track": False
    }  # fmt: skip
    studies = {"manifest": run / "cohort" / "manifest.csv", "cache": cache_place(None, run)}
    shared = {"bootstrap": scale.resamples, "out": run / "transfer"}
    says = f"teach a radiograph's model what the CT shows of {task}"
    return [Station("transfer", says, transfer, students | learning | studies | shared)]


def _reporting(run: Path) -> list[Station]:
    """A page about all of it."""
    from medssml.verbs.report import report

    return [Station("report", "write the report", report, {"run": run})]


def _measure_gain(*, run: Path, resamples: int) -> None:
    """gain.json: the fine-tuned model beside the one from scratch, on the same test studies."""
    import pandas as pd

    from medssml.evaluation.bayes import read_truth
    from medssml.evaluation.gain import gains
    from medssml.files import write_json

    pretrained, scratch = (
        pd.read_csv(folder / "predictions.csv", dtype={"study_id": str, "subset": str, "subject": str})
        for folder in (run, run / SCRATCH)
    )
    truth = read_truth(run / "cohort" / "truth.csv")
    write_json(run / "gain.json", {"tasks": gains(pretrained, scratch, truth, n=resamples)})


class Story:
    """What of a demo is done, in `demo.json` of its folder.

    Args:
        folder: of the run.
        settings: what makes two demos the same.
        fresh: forget and remove an earlier one.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any], *, fresh: bool = False) -> None:
        self.folder, self.settings = folder, dict(settings)
        self.file = folder / STATE
        self.done: dict[str, float] = {}
        self.seconds = 0.0
        if self.file.exists():
            known = json.loads(self.file.read_text(encoding="utf-8"))
            if fresh:
                self._remove()
            elif known["settings"] != self.settings:
                raise ValueError(f"{folder} holds a demo with other settings; fix: --fresh, or another --out")
            else:
                self.done = known["done"]
        folder.mkdir(parents=True, exist_ok=True)
        self._save()

    def do(self, name: str, says: str, verb: Callable[..., Any], arguments: Mapping[str, Any]) -> int:
        """Runs one station unless it is done; returns its exit code."""
        if name in self.done:
            console.say(f"{says}: done before, in {console.duration(self.done[name])}")
            return 0
        console.say("")
        console.say(says)
        started = time.monotonic()
        value = verb(**arguments)
        spent = time.monotonic() - started
        self.seconds += spent
        if isinstance(value, int) and not isinstance(value, bool) and value != 0:
            return value
        console.say(f"      {console.duration(spent)}")
        self.done[name] = spent
        self._save()
        return 0

    def _save(self) -> None:
        from medssml.files import write_json

        write_json(self.file, {"settings": self.settings, "done": self.done})

    def _remove(self) -> None:
        """Removes what a demo wrote into its own folder, and nothing else."""
        from medssml.runs.run_folder import RunFolder

        RunFolder(self.folder).clear()
        for name in OWN:
            shutil.rmtree(self.folder / name, ignore_errors=True)
