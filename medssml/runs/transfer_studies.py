"""The studies of a transfer: whose labels the student has, who is seen by student and teacher, and what is refused."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medssml.manifest.manifest import Manifest
from medssml.runs import console
from medssml.runs.mixed_batches import hidden_labels
from medssml.transfer.methods import METHODS


@dataclass(frozen=True)
class TransferStudies:
    """Who learns from what.

    Args:
        alone: what the student without transfer sees: its labelled training studies; validation and test studies.
        taught: the same, and the training studies that student and teacher both see; where a transfer learns from them, also
            those that the student alone sees.
        shown: training studies that the teacher sees, with the labels that may be known: the student's, and those of studies
            without its modality.
        counts: for the protocol.
    """

    alone: Manifest
    taught: Manifest
    shown: Manifest
    counts: dict[str, int]


def transfer_studies(
    table: Manifest,
    student: str,
    source: Sequence[str],
    tasks: Sequence[str],
    labelled: Collection[str],
    *,
    paired: bool = True,
    lone: bool = False,
) -> TransferStudies:
    """Divides the studies of a table.

    Args:
        table: of which the modalities are the student's and the teacher's.
        labelled: ids of the training studies whose labels the student may see; those of its other training studies are hidden.
        paired: whether the transfer needs studies that both see. lone: whether it learns from those that the student alone sees.

    Raises:
        ValueError: no training study is seen by both, where one is needed, or none is labelled.
    """
    own = _has(table, [student])
    pairs = own & _has(table, source)
    train = table.splits == "train"
    known = np.array([study in labelled for study in table.study_ids], dtype=bool) & own & train
    if paired and not (pairs & train).any():
        without = [name for name, kind in METHODS.items() if not kind.paired]
        raise ValueError(
            f"no training study has both {student} and {' or '.join(source)}: there is nothing by which the teacher could "
            f"teach; fix: studies with both, another --source, or --method {' or '.join(without)}, which need no pair"
        )
    if not known.any():
        raise ValueError(f"no training study with {student} is labelled; fix: --labels, or label some")
    whole = hidden_labels(table, tasks, set(table.study_ids[known]))
    seen = hidden_labels(table, tasks, set(table.study_ids[known | ~own])).filter(train & _has(table, source))
    judged = own & ~train & _labelled(table, tasks)
    counts = {
        "labelled": int(known.sum()),
        "seen by both": int((pairs & train).sum()),
        "of them without a label": int((pairs & train & ~known).sum()),
        "validation": int((judged & (table.splits == "val")).sum()),
        "test": int((judged & (table.splits == "test")).sum()),
    }
    if not paired:
        counts["seen by the teacher"] = len(seen)
        counts["labelled and seen by the teacher"] = int(_labelled(seen, tasks).sum())
    if lone:
        counts["seen by the student without a label"] = int((own & train & ~known).sum())
    teaches = (own if lone else pairs) & train
    return TransferStudies(whole.filter(known | judged), whole.filter(known | teaches | judged), seen, counts)


def refuse_seen(table: Manifest, subjects: Collection[str], whose: str) -> None:
    """Refuses a model that was trained on somebody who is to judge it.

    Args:
        subjects: what the subjects of its training are called in results; none where nobody wrote them down.
        whose: flag of the model.

    Raises:
        ValueError: with how many.
    """
    held = {str(code) for code, split in zip(table.subject_codes, table.splits, strict=True) if split != "train"}
    everyone = {str(code) for code in table.subject_codes}
    if both := len(held & set(subjects)):
        raise ValueError(
            f"{whose} was trained on {both} of the {len(held)} validation and test subjects, so that a gain would say "
            f"nothing of new ones; fix: a teacher of the training subjects, or another split"
        )
    if not everyone & set(subjects):
        console.warn(
            f"none of the subjects that {whose} was trained on is known here: whether it saw validation or test subjects "
            f"cannot be told"
        )


def _has(table: Manifest, modalities: Sequence[str]) -> NDArray[np.bool_]:
    columns = [table.modalities.index(name) for name in modalities if name in table.modalities]
    return np.asarray(table.present[:, columns].any(axis=1))


def _labelled(table: Manifest, tasks: Sequence[str]) -> NDArray[np.bool_]:
    return np.any([np.isfinite(table.targets[task]) for task in tasks], axis=0)
