"""What a verb returns in Python: the folder or file that it wrote, and what is in it, read when it is asked for."""

from __future__ import annotations

import json
import os
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from medssml.predictor import Predictor


class Folder:
    """A folder of results. It is a path itself: hand it to the next verb, `medssml.finetune(checkpoint=run, ...)`.

    Args:
        path: the folder.
        too_many_lost: more studies were left out than the limit; `problems` says which.
    """

    def __init__(self, path: str | Path, *, too_many_lost: bool = False) -> None:
        self.path, self.too_many_lost = Path(path), too_many_lost

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}{', too many studies lost' if self.too_many_lost else ''})"

    #: Whose list of problems this is, where the folder has those of several verbs.
    verb = ""

    @cached_property
    def problems(self) -> pd.DataFrame:
        """The verb's list: row, study_id, column, file, code, problem, action, fix; no row where nothing was left out."""
        from medssml.manifest.problems import own_list

        return problem_table(own_list(self.path, self.verb) if self.verb else self.path / "problems.csv")

    @cached_property
    def report(self) -> Path | None:
        """The page, where one was written."""
        page = self.path / "report.html"
        return page if page.exists() else None

    def _json(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        return found

    def _csv(self, name: str) -> pd.DataFrame:
        import pandas as pd

        text = {"study_id": str, "subject": str, "subset": str, "modality": str}
        return pd.read_csv(self.path / name, dtype=text, keep_default_na=False, na_values={"probability": [""]})


class Run(Folder):
    """A run folder, of a training.

    run = medssml.pretrain(config="small", manifest="cohort/manifest.csv", out="runs/pretrain")
    run.history.plot(x="step", y="loss")
    run.load().embed({"report": "No acute findings."})
    """

    @property
    def done(self) -> bool:
        """Whether the training has ended and its model is there."""
        return (self.path / "model" / "config.json").exists()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The resolved config."""
        import yaml

        found: dict[str, Any] = yaml.safe_load((self.path / "config.yaml").read_text(encoding="utf-8"))
        return found

    @cached_property
    def history(self) -> pd.DataFrame:
        """history.csv: a row per logged step."""
        import pandas as pd

        return pd.read_csv(self.path / "history.csv")

    @cached_property
    def presence(self) -> dict[str, Any]:
        """Studies per pattern of modalities and split."""
        return self._json("presence.json")

    @cached_property
    def labels(self) -> dict[str, Any]:
        """Task -> the account of its labels per split; of a fine-tuning."""
        tasks: dict[str, Any] = self._json("labels.json")["tasks"]
        return tasks

    def load(self, device: str = "cpu") -> Predictor:
        """The model with its transforms: `medssml.load`."""
        from medssml.predictor import load

        return load(self.path, device=device)


class Transferred(Run):
    """What `transfer` wrote: the run folder of the student that is kept, and what its teacher was worth."""

    @cached_property
    def result(self) -> dict[str, Any]:
        """transfer_gain.json."""
        return self._json("transfer_gain.json")

    @property
    def kept(self) -> bool:
        """Whether the transfer is kept; otherwise the student alone is."""
        return bool(self.result["gate"]["kept"])

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per task: n, and what the student is worth without and with transfer, with the ends of its interval."""
        import pandas as pd

        return pd.DataFrame([{"task": task, **_flat(entry)} for task, entry in self.result["tasks"].items()])


class Evaluation(Folder):
    """What `evaluate` wrote."""

    verb = "evaluate"

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """metrics.json: tasks, retrieval, protocol."""
        return self._json("metrics.json")

    @cached_property
    def predictions(self) -> pd.DataFrame:
        """predictions.csv: a row per study, task, subset (and class)."""
        return self._csv("predictions.csv")

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per task and subset of modalities, "as observed" among them: n, positive, and each metric with its ends."""
        import pandas as pd

        rows = []
        for task, entry in self.metrics["tasks"].items():
            subsets = {"as observed": entry.get("as_observed", {}), **entry.get("subsets", {})}
            rows += [{"task": task, "subset": subset, **_flat(found)} for subset, found in subsets.items()]
        return pd.DataFrame(rows)


class Impact(Folder):
    """What `impact` wrote."""

    verb = "impact"

    def of(self, task: str) -> Impact:
        """The same of one of several tasks that were asked for at once; the first is this one itself.

        Raises:
            KeyError: no such task here.
        """
        if task == self.result["task"]:
            return self
        if not (self.path / "impact" / task / "impact.json").is_file():
            raise KeyError(f"{self.path} has no impact on {task!r}; fix: ask for it, or for task='all'")
        return Impact(self.path / "impact" / task)

    @cached_property
    def result(self) -> dict[str, Any]:
        """impact.json."""
        return self._json("impact.json")

    @cached_property
    def studies(self) -> pd.DataFrame:
        """impact.csv: a row per study and modality."""
        return self._csv("impact.csv")

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per modality: each measure with the ends of its interval."""
        import pandas as pd

        return pd.DataFrame([{"modality": name, **_flat(found)} for name, found in self.result["modalities"].items()])


class Stress(Folder):
    """What `stress` wrote."""

    verb = "stress"

    @cached_property
    def result(self) -> dict[str, Any]:
        """stress.json."""
        return self._json("stress.json")

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per task, obstacle and severity: the metric, what it costs, calibration, with the ends of their intervals."""
        import pandas as pd

        return pd.DataFrame(
            [
                {"task": task, "obstacle": name, **_flat(point)}
                for task, entry in self.result["tasks"].items()
                for name, found in entry["obstacles"].items()
                for point in found["points"]
            ]
        )


class Checked:
    """What `check` found.

    Args:
        problems: row, study_id, column, file, code, problem, action, fix.
        exit_code: 0; 3 where the table is refused; 4 where too much would be lost.
    """

    def __init__(self, problems: pd.DataFrame, exit_code: int) -> None:
        self.problems = problems
        self.refused, self.too_many_lost = exit_code == 3, exit_code == 4

    @property
    def ok(self) -> bool:
        """Whether a training on the table would start, on nearly all of it."""
        return not self.refused and not self.too_many_lost

    def __repr__(self) -> str:
        verdict = "refused" if self.refused else "too much is lost" if self.too_many_lost else "usable"
        counts = ", ".join(f"{n} {action}" for action, n in self.problems["action"].value_counts().items())
        return f"Checked({verdict}; {counts or 'no problem'})"


def problem_table(path: Path) -> pd.DataFrame:
    """A problems.csv as a table; without a row where there is none."""
    import pandas as pd

    from medssml.manifest.problems import COLUMNS

    if not path.exists():
        return pd.DataFrame(columns=list(COLUMNS))
    found = pd.read_csv(path, dtype=str, keep_default_na=False)
    return found.assign(row=pd.to_numeric(found["row"]).fillna(0).astype(int))


def _flat(found: dict[str, Any]) -> dict[str, Any]:
    """Numbers of an entry, and its intervals as three columns each."""
    row: dict[str, Any] = {}
    for name, value in found.items():
        if isinstance(value, dict) and "estimate" in value:
            row |= {name: value["estimate"], f"{name}_low": value["ci_low"], f"{name}_high": value["ci_high"]}
        elif isinstance(value, (int, float)):
            row[name] = value
    return row
