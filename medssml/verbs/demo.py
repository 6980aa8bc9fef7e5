"""`medssml demo`: the whole story on a simulated cohort, offline, on a CPU."""

from __future__ import annotations

import json
import resource
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from medssml.runs import console

STATE = "demo.json"
#: Simulated studies have no patients: the demo needs no key, and its results go by the ids of its cohort.
PLAIN = "privacy.strict=false"
#: Folders inside the run that only the demo writes.
OWN = ("cohort", "pretrain", "cache")


@dataclass(frozen=True)
class Scale:
    """How large the story is.

    studies: of the simulated cohort. pretrain, finetune: configs. labels: share of the labelled training subjects that
    fine-tuning sees. tasks: whose modality impact is worked out. resamples: of the bootstrap.
    """

    studies: int
    pretrain: str
    finetune: str
    labels: float
    tasks: tuple[str, ...]
    resamples: int
    overrides: tuple[str, ...] = ()


class Station(NamedTuple):
    """One step of the story: its name in demo.json, what it says, the verb, its arguments."""

    name: str
    says: str
    verb: Callable[..., Any]
    arguments: dict[str, Any]


FULL = Scale(
    400,
    "pretrain/phantom.yaml",
    "finetune/default.yaml",
    0.5,
    ("malignant", "deterioration"),
    1000,
    ("trainer.max_epochs=12", "trainer.validate_every=4"),
)
QUICK = Scale(64, "smoke/pretrain.yaml", "smoke/finetune.yaml", 1.0, ("malignant",), 200)


def demo(*, out: Path | None = None, quick: bool = False, seed: int = 0, fresh: bool = False) -> Path | int:
    """Simulates a cohort, checks it, pretrains, fine-tunes, evaluates, splits the predictions among the modalities, reports.

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
    folder = out if out is not None else Path("runs/demo-quick" if quick else "runs/demo")
    scale = QUICK if quick else FULL
    story = Story(folder, {**json.loads(json.dumps(asdict(scale))), "seed": seed}, fresh=fresh)
    code = _tell(story, scale, seed)
    if code:
        return code
    console.say("")
    if story.seconds:
        peak = (
            max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) / 2**20
        )
        console.say(f"this took {console.duration(story.seconds)} and {peak:.1f} GiB of memory at most")
    else:
        console.say("everything was done before; --fresh starts over")
    console.say(f"open {folder / 'report.html'} in a browser")
    return folder


def _tell(story: Story, scale: Scale, seed: int) -> int:
    """Every station of the story through its verb; the first exit code that is not 0 ends it."""
    stations = [*_learning(story.folder, scale, seed), *_judging(story.folder, scale)]
    for number, (name, says, verb, arguments) in enumerate(stations, start=1):
        code = story.do(name, f"[{number}/{len(stations)}] {says}", verb, arguments)
        if code:
            return code
    return 0


def _learning(run: Path, scale: Scale, seed: int) -> list[Station]:
    """From nothing to a model of every task."""
    from medssml.verbs.check import check
    from medssml.verbs.finetune import finetune
    from medssml.verbs.phantom import phantom
    from medssml.verbs.pretrain import pretrain

    cohort = run / "cohort"
    shared = {"manifest": cohort / "manifest.csv", "cache": run / "cache", "seed": seed}
    pretraining = {
        "config": config_file(scale.pretrain),
        "out": run / "pretrain",
        "overrides": [*scale.overrides, PLAIN],
    }
    tuning = {
        "checkpoint": str(run / "pretrain"),
        "task": ["all"],
        "labels": scale.labels,
        "out": run,
        "overrides": [PLAIN],
    }
    return [
        Station(
            "cohort",
            f"simulate {scale.studies} studies",
            phantom,
            {"out": cohort, "studies": scale.studies, "seed": seed},
        ),
        Station(
            "check", "check every file", check, {"manifest": shared["manifest"], "problems": cohort / "problems.csv"}
        ),
        Station("pretrain", "pretrain without labels", pretrain, shared | pretraining),
        Station(
            "finetune",
            f"fine-tune on {scale.labels:.0%} of the labels",
            finetune,
            shared | tuning | {"config": config_file(scale.finetune)},
        ),
    ]


def _judging(run: Path, scale: Scale) -> list[Station]:
    """What the model can do, what each modality does in it, and a page about both."""
    from medssml.verbs.evaluate import evaluate
    from medssml.verbs.impact import impact
    from medssml.verbs.report import report

    shared = {"checkpoint": str(run), "manifest": run / "cohort" / "manifest.csv", "cache": run / "cache"}
    shared |= {"bootstrap": scale.resamples}
    # The page shows one task's impact in full, that of the run folder itself; the others lie beside it.
    places = [run, *(run / "impact" / task for task in scale.tasks[1:])]
    return [
        Station("evaluate", "evaluate every missing pattern", evaluate, shared | {"out": run}),
        *(
            Station(
                f"impact-{task}", f"impact of each modality on {task}", impact, shared | {"task": task, "out": place}
            )
            for task, place in zip(scale.tasks, places, strict=True)
        ),
        Station("report", "write the report", report, {"run": run}),
    ]


def config_file(name: str) -> Path:
    """A shipped config: beside the package in a checkout, inside it when installed.

    Raises:
        FileNotFoundError: the installation is not whole.
    """
    package = Path(__file__).resolve().parent.parent
    for folder in (package.parent / "configs", package / "configs"):
        if (folder / name).exists():
            return folder / name
    raise FileNotFoundError(2, "no such shipped config", str(package.parent / "configs" / name))


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
