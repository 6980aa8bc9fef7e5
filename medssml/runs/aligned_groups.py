"""`--align`: groups of a study table whose vectors are moved to those of training, and what that is worth, apart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from medssml.evaluation.alignment import LEAST, How
from medssml.statistics.bootstrap import Array

if TYPE_CHECKING:
    import pandas as pd

    from medssml.evaluation.probing import FusedEmbeddings
    from medssml.evaluation.tasks import TaskSettings
    from medssml.manifest.manifest import Manifest


@dataclass(frozen=True)
class Groups:
    """What is aligned, and the column whose values are the groups."""

    how: How
    column: str

    def of(self, table: Manifest) -> Array:
        """(n,) text, the group of each study, "" for none; subjects and studies as they are called in whatever is written."""
        codes = {"subject_id": table.subject_codes, "study_id": table.study_codes}
        return np.asarray(codes[self.column] if self.column in codes else table.table[self.column], dtype=object)


def groups_of(table: Manifest, align: How | None, by: str | None, split: str) -> Groups | None:
    """What --align and --by ask for; None where nothing is aligned.

    Raises:
        ValueError: they do not go together, or cannot be done with this table and split. KeyError: no such column.
    """
    from medssml.checks.distributions import SOURCES, source_column
    from medssml.schema import nearest

    if align is None:
        if by is not None:
            raise ValueError(f"--by {by} names the groups that --align moves; fix: --align centre, or leave it out")
        return None
    if align not in get_args(How):
        raise ValueError(f"--align {align} is unknown; accepted: {', '.join(get_args(How))}")
    if split in ("train", "all"):
        raise ValueError(f"--align moves studies to those of training; fix: --split test or val, not {split}")
    column = source_column(table) if by is None else by
    if column is None:
        raise ValueError(f"--align: no column says where studies come from ({', '.join(SOURCES)}); fix: --by COLUMN")
    if column not in table.table:
        raise KeyError(f"--by: the manifest has no column {column!r}{nearest(column, map(str, table.table.columns))}")
    if column.startswith("label_") or column == "split":
        raise ValueError(f"--by {column}: groups must be known without a label; fix: a column such as group_site")
    if not (table.splits == "train").any():
        raise ValueError(
            "--align: no training study to align to; fix: a manifest that holds them too, with split train"
        )
    groups = Groups(align, column)
    if not (groups.of(table.split(split)) != "").any():
        raise ValueError(f"--by {column}: the column is empty for every {split} study; fix: another column")
    return groups


def aligned_figures(
    groups: Groups | None,
    embeddings: FusedEmbeddings,
    table: Manifest,
    results: Mapping[str, Mapping[str, Any]],
    settings: TaskSettings,
) -> tuple[dict[str, Any], pd.DataFrame | None]:
    """{"transductive": its entry of metrics.json} and predictions_aligned.csv; {} and None where nothing is aligned.

    Args:
        groups: what is aligned.
        embeddings: of training, validation and reported studies as they are.
        table: those studies.
        results: task -> its entry of metrics.json, of the studies as they are.
        settings: how tasks are evaluated.
    """
    from medssml.evaluation.alignment import align_studies
    from medssml.evaluation.tasks import stacked
    from medssml.evaluation.transductive import transductive_task
    from medssml.runs.prompts import targets_of

    if groups is None:
        return {}, None
    splits, names = embeddings.splits, groups.of(table)
    group_of = dict(zip(table.study_codes, names, strict=True))
    own = np.array([group_of[study] for study in splits.test.study_id], dtype=object)
    aligned = align_studies(splits.train, splits.test, own, groups.how)
    split_of, targets = dict(zip(table.study_codes, table.splits, strict=True)), targets_of(table)
    tasks, frames = dict[str, Any](), []
    for task, entry in results.items():
        threshold = float(entry.get("threshold", {}).get("value", 0.5))
        tasks[task], frame = transductive_task(
            embeddings.model, embeddings, aligned, own, targets[task], settings, threshold, split_of
        )
        frames.append(frame)
    taught = names[table.splits == "train"]
    for name, found in aligned.groups.items():
        found["in_training"] = int((taught == name).sum())
    return {
        "transductive": {
            "protocol": f"transductive: used the unlabelled reported studies of each group of {groups.column}",
            "align": groups.how,
            "by": groups.column,
            "least": LEAST,
            "ungrouped": int((own == "").sum()),
            "groups": aligned.groups,
            "tasks": tasks,
        }
    }, stacked(frames)
