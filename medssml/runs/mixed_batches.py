"""Training studies without a label beside the labelled ones: half of each batch is of either."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from medssml.manifest.manifest import Manifest
from medssml.runs import console
from medssml.runs.training_config import DataSettings, Finetuning

#: Column by which batches are mixed.
GROUP = "training_group"
LABELLED, OTHERS = "labelled", "others"


def hidden_labels(table: Manifest, tasks: Sequence[str], labelled: Collection[str]) -> Manifest:
    """The same studies, those of training without their labels of `tasks`, but for `labelled`; `GROUP` says who is which.

    Args:
        labelled: ids of the training studies whose labels may be seen.
    """
    known = np.array([study in labelled for study in table.study_ids], dtype=bool)
    hide = (table.splits == "train") & ~known
    cells = {f"label_{task}": np.where(hide, "", table.table[f"label_{task}"]) for task in tasks}
    return replace(table, table=table.table.assign(**cells, **{GROUP: np.where(hide, OTHERS, LABELLED)}))


def with_others(table: Manifest, chosen: Manifest, tasks: Sequence[str]) -> Manifest:
    """`chosen`, the labelled studies of a training, and beside them all other training studies of `table`, without labels."""
    kept = set(chosen.study_ids)
    whole = hidden_labels(table, tasks, kept)
    return whole.filter((table.splits == "train") | np.array([study in kept for study in table.study_ids], dtype=bool))


def others(table: Manifest) -> int:
    """How many training studies of `with_others` have no label that may be seen."""
    return int((table.table[GROUP] == OTHERS).sum()) if GROUP in table.table else 0


def say_others(table: Manifest) -> None:
    """How many there are; a warning where nobody is left to learn from without a label."""
    count = others(table)
    if count:
        console.say(f"{count} training studies without a label take part: half of each batch, which is twice as large")
    else:
        console.warn("every training study is labelled: unlabelled has nothing to add")


def mixed(data: DataSettings) -> DataSettings:
    """Batches with as many labelled studies as those of `data`, and as many others."""
    return replace(data, batch_size=2 * data.batch_size, balance=GROUP, balance_power=0.0)


def batches_of(config: Finetuning, table: Manifest) -> Finetuning:
    """What loads the studies of `table`: the config itself, or with mixed batches where some of them have no label."""
    # What `unlabelled` asks for is said by `data` then, where the config refuses to have both.
    return replace(config, unlabelled=False, data=mixed(config.data)) if others(table) else config
