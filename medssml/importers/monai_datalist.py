"""MONAI's list of data: a JSON with "training", "validation" and "test", each a list of dicts from key to file or value.

    {"training": [{"image": "images/a.nii.gz", "label": 1, "subject_id": "p1"}], "test": [{"image": "images/b.nii.gz"}]}

Keys that are modalities become their columns; `image` becomes that of its file's ending, and `--column ct=scan` names others. A
number under any other key is a label, a
text that is no file is a text. Without `subject_id` every entry is a subject of its own, and the note says so: two entries of
one patient must share it. `Manifest.to_datalist` gives such entries.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from medssml.importers.account import LayoutError
from medssml.importers.study import OFFICIAL, File, Layout, Options, Studies, Study, radiograph, slug
from medssml.importers.tree import Tree, slashed

_FILES = ("ct", "xray", "eeg", "report")
_ENDINGS = (
    ((".nii", ".nii.gz", ".nrrd", ".mha", ".mhd"), "ct"),
    ((".png", ".jpg", ".jpeg"), "xray"),
    ((".edf", ".bdf", ".fif", ".set"), "eeg"),
)
#: What MONAI's applications write beside the lists.
_ABOUT = frozenset(
    {"name", "description", "licence", "license", "reference", "modality", "labels", "release", "tensorImageSize"}
)


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """A study per entry; entries with the same `study_id` are one.

    Raises:
        LayoutError: no such JSON.
    """
    name = _file(tree)
    tree.account.read(name)
    lists = _lists(tree, name)
    ours = {theirs: our for our, theirs in options.columns.items()}
    studies = Studies()
    alone = number = 0
    for split, entries in lists.items():
        for entry in entries:
            number += 1
            row = tree.account.row(name, number)
            entry = entry if isinstance(entry, dict) else {"image": entry}
            named = {ours.get(str(key), _column(str(key), value)): value for key, value in entry.items()}
            subject, own = _ids(named, number)
            alone += "subject_id" not in named
            study = studies.of(subject, own)
            if study.subject_id != subject:
                tree.account.leave_out(row, f"study {own} is of another subject in an earlier entry", study_id=own)
                continue
            study.split = study.split or split
            _add(tree, study, named, row, number)
    if alone:
        tree.account.note(f"{alone:,} entries have no subject_id: each is taken for a subject of its own")
    return studies.values()


def _file(tree: Tree) -> str:
    if tree.only:
        return tree.only
    found = [path for path, _ in tree.matching(r"^[^/]*\.json$")]
    if len(found) != 1:
        raise LayoutError(tree.root, f"holds {len(found)} .json files", "give the list itself as ROOT")
    return found[0]


def _lists(tree: Tree, name: str) -> dict[str, list[Any]]:
    """train, val, test -> entries; a bare list has no split."""
    fix = 'a JSON such as {"training": [{"image": "a.nii.gz"}]}'
    try:
        said = json.loads(tree.text(name))
    except ValueError as error:
        raise LayoutError(tree.root / name, f"is no JSON ({error})", fix) from None
    if isinstance(said, list):
        return {"": said}
    if not isinstance(said, dict):
        raise LayoutError(tree.root / name, f"holds a {type(said).__name__}", fix)
    lists = {OFFICIAL[key.lower()]: value for key, value in said.items() if key.lower() in OFFICIAL}
    strange = [key for key in said if key.lower() not in OFFICIAL and key not in _ABOUT and isinstance(said[key], list)]
    if strange:
        tree.account.note(f"lists that are no split were not read: {', '.join(sorted(strange))}")
    if not lists or not all(isinstance(value, list) for value in lists.values()):
        raise LayoutError(tree.root / name, "has no list under training, validation or test", fix)
    return lists


def _column(key: str, value: Any) -> str:
    """The modality of MONAI's usual key, by the ending of its file; any other key is itself."""
    if key != "image" or not isinstance(value, str):
        return key
    return next((modality for endings, modality in _ENDINGS if value.lower().endswith(endings)), key)


def _ids(entry: Mapping[str, Any], number: int) -> tuple[str, str]:
    own = str(entry.get("study_id") or f"study_{number:05d}")
    return str(entry.get("subject_id") or own), own


def _add(tree: Tree, study: Study, entry: Mapping[str, Any], row: int, number: int) -> None:
    taken = False
    for key, value in entry.items():
        if key in ("subject_id", "study_id") or value is None or value == "":
            continue
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        if key in _FILES and isinstance(value, str):
            taken |= _add_file(tree, study, key, value, row, number)
        elif isinstance(value, (bool, int, float)):
            label = key if key.startswith(("label_", "table_")) else "label" if key == "label" else f"label_{slug(key)}"
            study.columns.setdefault(
                "label_label" if label == "label" else label, str(int(value) if value in (0, 1) else value)
            )
        elif isinstance(value, str):
            study.columns.setdefault(key if key != "image" else "source_image", value)
    if not taken:
        study.rows.append((row, "columns"))


def _add_file(tree: Tree, study: Study, key: str, value: str, row: int, number: int) -> bool:
    """Whether the value was a file, or a text, of the study; a file that is not there is accounted for."""
    path = slashed(value)
    if os.path.isabs(path):
        path = os.path.relpath(os.path.realpath(path), os.path.realpath(tree.root)).replace(os.sep, "/")
    inside = tree.allow_outside or os.path.normpath(path).split(os.sep)[0] != ".."
    there = len(path) < 1024 and "\n" not in path and (tree.root / Path(path)).exists()
    if key == "report" and not there:
        study.report_text = study.report_text or value
        return False
    if not there or not inside:
        reason = "no such file" if inside else "outside the root; fix: --allow-outside"
        tree.account.file(value, reason, (tree.only, number))
        return False
    if key == "report":
        study.report = study.report or path
        return False
    study.add(key, radiograph(path, row=row) if key == "xray" else File(path, row=row))
    return True


LAYOUTS = (
    Layout(
        "monai-datalist",
        "MONAI's list of data",
        'a JSON {"training": [{"image": ..., "label": ...}], "validation": [...], "test": [...]}',
        read,
        (),
        ("datalist", "decathlon"),
        takes_file=True,
    ),
)
