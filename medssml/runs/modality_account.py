"""Which modalities the model, its training studies and the reported studies have, and what is on one side only.

A modality that is missing on one side costs no error and may cost the result: it is said at the start of every verb.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from medssml.manifest.manifest import Manifest


#: File of a run folder: the subjects that its model was trained on.
SUBJECTS = "training_subjects.json"


def having(studies: Manifest) -> dict[str, int]:
    """Modality -> how many of the studies have it; those that nobody has are left out."""
    counts = {name: int(studies.present[:, column].sum()) for column, name in enumerate(studies.modalities)}
    return {name: count for name, count in counts.items() if count}


def account(
    modalities: Sequence[str],
    *,
    trained: Collection[str] | None,
    reported: Manifest | None = None,
    table: Manifest | None = None,
    then: str = "what the model makes of it was never trained",
) -> list[str]:
    """One line for each thing that the model, training or the reported studies have alone.

    Args:
        modalities: of the model.
        trained: those that training studies have; None where nobody knows.
        reported: studies that are asked about.
        table: whose further columns of files the model does not read.
        then: what becomes of a modality that no training study has.
    """
    from medssml.checks.cohort_check import unused_columns

    shown = {} if reported is None else having(reported)
    said = []
    for name in modalities:
        if trained is not None and name not in trained:
            of_them = f", and {shown[name]} reported studies have it" if name in shown else ""
            said.append(f"no training study has {name}{of_them}: {then}")
        elif reported is not None and name not in shown:
            said.append(f"no reported study has {name}, which the model reads")
    for problem in () if table is None else unused_columns(table):
        said.append(f"column {problem.column} {problem.problem}")
    return said if table is None else [*said, *_unread(table, modalities)]


def _unread(table: Manifest, modalities: Sequence[str]) -> list[str]:
    """A line for each modality that stands in the cells of the table and that the model does not have."""
    from medssml.manifest.columns import MODALITIES, inline_columns

    said = []
    for name in MODALITIES:
        columns = [] if name in modalities else inline_columns(name, table.table.columns)
        filled = int((table.table[columns] != "").any(axis=1).sum()) if columns else 0
        if filled:
            fix = f"fix: a config with {name}, or remove the columns"
            said.append(f"{filled} studies have {', '.join(columns)}, which the model does not read; {fix}")
    return said


def of_reported(
    checkpoint: str | Path, modalities: Sequence[str], table: Manifest, split: str
) -> tuple[list[str], Training]:
    """Says what the model, its training or the reported studies have alone; with what is known of the training.

    Args:
        checkpoint: run folder, or its model folder.
        modalities: of the model.
        table: all studies of the table.
        split: of the reported ones, or "all".
    """
    from medssml.runs.source import say_split

    say_split(table, split)
    training = Training.of(checkpoint)
    reported = table if split == "all" else table.split(split)
    remarks = account(modalities, trained=training.trained, reported=reported, table=table)
    known = {str(code) for code in reported.subject_codes}
    both = len(known & training.subjects)
    if both:
        remarks.append(
            f"{both} of {len(known)} reported subjects were trained on: figures of them say nothing of new ones; fix: report "
            f"the test split, or other studies"
        )
    say(remarks)
    return remarks, training


def sentences(remarks: Sequence[str]) -> str:
    """The remarks as sentences behind another one."""
    return "".join(f" {remark[0].upper()}{remark[1:]}." for remark in remarks)


def say(remarks: Sequence[str]) -> None:
    """Warns of each."""
    from medssml.runs import console

    for remark in remarks:
        console.warn(remark)


@dataclass(frozen=True)
class Training:
    """What the run folder of a model says of the studies that it was trained on.

    Args:
        trained: modalities that training studies have; None where there is no run folder, as with a copied model.
        never_absent: those that every training study had, and that nothing hid while it was trained.
        subjects: what the subjects that it was trained on are called in results; none where nobody wrote them down.
    """

    trained: frozenset[str] | None = None
    never_absent: tuple[str, ...] = ()
    subjects: frozenset[str] = frozenset()

    @classmethod
    def of(cls, checkpoint: str | Path) -> Training:
        """Of a run folder, or its model folder."""
        from medssml.checkpoint import model_folder

        run = model_folder(checkpoint).parent
        try:
            found = json.loads((run / "presence.json").read_text(encoding="utf-8"))
            patterns = [row["pattern"].split("+") for row in found["patterns"] if row["train"] > 0]
        except (OSError, ValueError, KeyError, TypeError):
            return cls(subjects=trained_subjects(run))
        trained = frozenset(name for pattern in patterns for name in pattern if name)
        always = [name for name in found["modalities"] if all(name in pattern for pattern in patterns)]
        seen = tuple(always) if len(trained) > 1 and patterns and not _hides(run) else ()
        return cls(trained, seen, trained_subjects(run))


def trained_subjects(run: Path) -> frozenset[str]:
    """Those that `remember_subjects` wrote into a run folder."""
    try:
        return frozenset(json.loads((run / SUBJECTS).read_text(encoding="utf-8"))["subjects"])
    except (OSError, ValueError, KeyError, TypeError):
        return frozenset()


def remember_subjects(run: Path, train: Manifest, before: Collection[str] = ()) -> None:
    """Writes who a model was trained on, by the names of results, with those of the model that it began with.

    With the codes of another key nobody is known again: who reports elsewhere has to keep subjects apart himself.
    """
    from medssml.files import write_json

    write_json(run / SUBJECTS, {"subjects": sorted({*map(str, train.subject_codes), *before})})


def _hides(run: Path) -> bool:
    """Whether a fine-tuning hid modalities; True where its config does not say that it did not."""
    from medssml.runs.run_folder import read_yaml

    try:
        config: dict[str, Any] = read_yaml(run / "config.yaml")
    except OSError:
        return True
    return config.get("modality_dropout") != 0 or config.get("unimodal_weight") != 0
