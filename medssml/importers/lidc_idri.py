"""LIDC-IDRI from The Cancer Imaging Archive, whatever its folders are called.

    LIDC-IDRI-0001/<study>/<series>/*.dcm with one *.xml per series: the readings of up to four radiologists

Some patients have radiographs as well, as studies of their own. An `unblindedReadNodule` with characteristics is a nodule of
3 mm or more; the same tag without them is a smaller one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.etree import ElementTree

from medssml.importers import dicom_tree
from medssml.importers.account import Aside
from medssml.importers.study import Layout, Options, Study
from medssml.importers.tree import Tree

_DOCTYPE = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


class _Reading(NamedTuple):
    """study: StudyInstanceUID. marked: readers who mark a nodule of 3 mm or more, of `readers`. malignancy: their ratings."""

    study: str
    readers: int
    marked: int
    malignancy: tuple[int, ...]


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """Studies as of any DICOM tree, with what the radiologists marked.

    `label_nodule` is 1 where at least two readers mark a nodule of 3 mm or more, 0 where none does, empty where one does.
    """
    studies = {study.study_id: study for study in dicom_tree.read(tree, options)}
    for path in tree.wanted(
        "LIDC-IDRI's *.xml", [path for path, _ in tree.matching(r"\.xml$")], "no study has a label"
    ):
        reading = _reading(tree, path)
        if reading is None:
            tree.account.file(path, Aside("no reading of LIDC-IDRI"))
            continue
        study = studies.get(reading.study)
        if study is None:
            tree.account.file(path, Aside("a reading of a study that is not here"))
            continue
        study.sources.append((path, "label_nodule"))
        study.columns["readers_with_nodule"] = f"{reading.marked} of {reading.readers}"
        study.columns["label_nodule"] = "0" if reading.marked == 0 else "1" if reading.marked > 1 else ""
        if reading.malignancy:
            study.columns["malignancy"] = ";".join(map(str, reading.malignancy))
    return studies.values()


def _reading(tree: Tree, path: str) -> _Reading | None:
    text = tree.text(path)
    if _DOCTYPE.search(text[:4096]):
        return None
    try:
        root = ElementTree.fromstring(re.sub(r"^<\?xml[^>]*\?>", "", text))
    except ElementTree.ParseError:
        return None
    study = next((item.text or "" for item in _named(root, "StudyInstanceUID")), "").strip()
    sessions = list(_named(root, "readingSession"))
    if not study or not sessions:
        return None
    marked, ratings = 0, []
    for session in sessions:
        nodules = [item for item in _named(session, "characteristics") if len(item)]
        marked += bool(nodules)
        for nodule in nodules:
            texts = [(item.text or "").strip() for item in _named(nodule, "malignancy")]
            ratings += [int(text) for text in texts if text.isdigit()]
    return _Reading(study, len(sessions), marked, tuple(ratings))


def _named(root: ElementTree.Element, name: str) -> Iterable[ElementTree.Element]:
    """Elements of this name below `root`, in whatever namespace and case."""
    return (item for item in root.iter() if item.tag.rpartition("}")[2].lower() == name.lower())


LAYOUTS = (
    Layout("lidc-idri", "LIDC-IDRI", "DICOM files with one *.xml per CT series", read, (".dcm", ".xml"), ("lidc",)),
)
