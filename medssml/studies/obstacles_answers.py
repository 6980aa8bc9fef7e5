"""What a model answers in `medssml study obstacles`: the same studies undamaged, of every subset, and under an obstacle."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from medssml.data.prepared_studies import PreparedStudies, prepare_studies
from medssml.evaluation.encoded_studies import bits, subset_name
from medssml.evaluation.stress import Answers, Tested, answered
from medssml.evaluation.subsets import Predictions, predict_subsets
from medssml.manifest.manifest import Manifest
from medssml.obstacles import Damage, Obstacle, TableObstacle, Together
from medssml.obstacles.base import why_not_on
from medssml.predictor import load, load_transforms
from medssml.statistics.bootstrap import Array
from medssml.studies.obstacles_cells import Case

#: Columns of the answers beside those of the subsets: what each study is answered from all that it has, under nothing; under
#: the obstacle; that by the model which was taught without it; under its reverse; and what the obstacle leaves of a study.
UNDAMAGED, SAME, UNTAUGHT, REVERSED, LEFT = "undamaged", "same", "untaught", "reversed", "left"


@dataclass(frozen=True)
class Bench:
    """The studies that all models are asked about.

    Args:
        table: all of the cohort.
        val, test: prepared, undamaged.
        device: where models run.
    """

    table: Manifest
    val: PreparedStudies
    test: PreparedStudies
    device: str

    @classmethod
    def prepared(cls, run: Path, manifest: Path, cache: Path, device: str) -> Bench:
        """The studies as a run has seen them."""
        table, transforms = Manifest.read(manifest), load_transforms(run / "model")
        val, test = (prepare_studies(table.split(split), transforms, cache) for split in ("val", "test"))
        return cls(table, val, test, device)

    @property
    def taught(self) -> Manifest:
        """The studies of training and validation, which suffer together."""
        return self.table.filter(self.table.splits != "test")

    def why_not(self, case: Case, task: str) -> str | None:
        """Why an obstacle can change nothing of these studies, or None."""
        return next(filter(None, map(self._why_not, case.built(task))), None)

    def _why_not(self, obstacle: Obstacle) -> str | None:
        try:
            obstacle.fit(self.table, self.taught)
            if isinstance(obstacle, Damage):
                if obstacle.modality not in self.table.modalities:
                    return f"no study has {obstacle.modality}"
                return why_not_on(self.test.transforms[obstacle.modality], obstacle)
        except ValueError as error:
            return str(error).removeprefix(f"{obstacle.name}: ").split("; fix:")[0]
        return None

    def asked(self, run: Path) -> Asked:
        """A fine-tuned model, and the studies behind its encoders."""
        model = load(str(run), (), self.device).model
        tested = {"val": self.val, "test": self.test}
        return Asked(self, {split: Tested.of(model, cohort, self.device) for split, cohort in tested.items()})


class Asked:
    """One model and what it answers. tested: val and test."""

    def __init__(self, bench: Bench, tested: dict[str, Tested]) -> None:
        self.bench, self._tested = bench, tested

    def answers(self, case: Case, tasks: Sequence[str], untaught: Asked) -> pd.DataFrame:
        """A row per task and validation or test study.

        Args:
            case: the obstacle.
            tasks: of two classes.
            untaught: the model of the same recipe that was taught without the obstacle.

        Returns:
            split, study_id, subject, task, y, `SAME`, `LEFT`; of test studies also `UNDAMAGED`, `UNTAUGHT`, `REVERSED` where
            the obstacle has a reverse, and a column for each subset, empty where a study lacks a part of it. `y` of
            validation studies is what training says of them.
        """
        val, test = self._under(case, "val", tasks), self._under(case, "test", tasks)
        by_other = untaught._under(case, "test", tasks)
        back = None if case.reverse is None else self._under(case.reverse, "test", tasks)
        every = predict_subsets(self._tested["test"].model, self._tested["test"].clean, tasks, self.bench.device)
        told = self._told(case, tasks)
        rows = []
        for task in tasks:
            rows.append(self._rows("val", task, val).assign(y=told[task]))
            more = {UNDAMAGED: every.observed(every.probabilities(task)), UNTAUGHT: by_other.scores[task]}
            more |= {} if back is None else {REVERSED: back.scores[task]}
            rows.append(self._rows("test", task, test).assign(**more, **_by_subset(every, task)))
        table = pd.concat(rows, ignore_index=True)
        return table.loc[table["y"].notna()].reset_index(drop=True)

    def _rows(self, split: str, task: str, under: Answers) -> pd.DataFrame:
        studies = self._tested[split].clean
        left = [subset_name(int(mask), studies.modalities) for mask in under.left]
        columns: dict[str, Any] = {
            "split": split, "study_id": studies.study_id, "subject": studies.subject, "task": task,
            "y": studies.targets[task], SAME: under.scores[task], LEFT: left,
        }  # fmt: skip
        return pd.DataFrame(columns)

    def _under(self, case: Case, split: str, tasks: Sequence[str]) -> Answers:
        """The answers to the studies of a split as an obstacle leaves them; of training alone: as they are."""
        tested = self._tested[split]
        # What befalls labels decides in validation what is absent by label after it.
        met = [obstacle for obstacle in case.built(tasks[0]) if split == "val" or not obstacle.of_training]
        together = Together(met)
        # As in training, where those of training and validation suffer together; those of the test by themselves.
        together.fit(self.bench.table, self.bench.taught if split == "val" else tested.cohort.manifest)
        return answered(tested, together, tasks)

    def _told(self, case: Case, tasks: Sequence[str]) -> dict[str, Array]:
        """Task -> what validation studies are said to be, by whoever trains."""
        studies = self._tested["val"].clean
        if not any(part.kind.of_training for part in case.parts):
            return {task: studies.targets[task] for task in tasks}
        left = self.bench.taught
        for obstacle in case.built(tasks[0]):
            if isinstance(obstacle, TableObstacle):
                obstacle.fit(self.bench.table, self.bench.taught)
                left = obstacle.applied(left)
        place = {name: row for row, name in enumerate(map(str, left.study_codes))}
        rows = [place[name] for name in studies.study_id]
        return {task: np.asarray(left.targets[task], dtype=np.float64)[rows] for task in tasks}


def _by_subset(every: Predictions, task: str) -> dict[str, Array]:
    """Subset -> (N,) probabilities, NaN for studies that lack a part of it."""
    scores = every.probabilities(task)
    found = {}
    for mask in sorted({int(m) & int(f) for f in set(bits(every.present)) for m in range(1, scores.shape[1])}):
        if mask:
            found[subset_name(mask, every.modalities)] = np.where(every.holds(mask), scores[:, mask], np.nan)
    return found
