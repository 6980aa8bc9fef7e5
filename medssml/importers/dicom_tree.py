"""Any tree of DICOM files: grouped by series, whatever the folders are called; CT series and radiographs by study.

A CT series is named by its folder; where other series lie there too, by its SeriesInstanceUID in `ct_series` as well. Where the
folder holds something that the reader would refuse (a file that is no image), or very many files, the series is left out. With
`Options.write_into` the slices of a series that has no folder of its own are linked into one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssml.importers.account import LayoutError
from medssml.importers.identity import Identity, identity
from medssml.importers.outputs import own_folder
from medssml.importers.reports import join_reports
from medssml.importers.study import File, Layout, Options, Studies, Study, radiograph, view_of
from medssml.importers.tree import Tree
from medssml.readers.dicom import is_dicom, read_header
from medssml.readers.errors import ReadError
from medssml.readers.report import report_header

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_OTHER = re.compile(
    r"\.(txt|csv|tsv|json|xml|html?|pdf|png|jpe?g|gz|nii|zip|tgz|tar|md|xlsx?|py|log|npz|edf)$", re.IGNORECASE
)
#: Endings that readers take for DICOM without looking.
_NAMED = (".dcm", ".dicom", ".ima")
_RADIOGRAPHS = ("CR", "DX", "RG")
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
#: The reader of one series looks into the header of every file in the folder, about a second for a thousand.
_MOST_FILES = 5_000
_MIXED = f"shares its folder with a file that is no image, or over {_MOST_FILES:,} slices; fix: --write-into"


@dataclass
class _Series:
    """Files of one SeriesInstanceUID and patient."""

    modality: str
    first: FileDataset
    files: list[str] = field(default_factory=list)
    frames: int = 0


@dataclass
class _Scan:
    """What a tree holds. series: CT series by (patient's digest, uid). refused: files that no reader of
    images takes; reports: the structured reports among them."""

    series: dict[tuple[str, str], _Series] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per StudyInstanceUID; the longest axial CT series is `ct`, the best frontal radiograph is `xray`."""
    scan = _Scan()
    studies = Studies()
    known: dict[str, str] = {}
    for path, dataset, digest in _headers(tree, scan):
        uid = str(dataset.get("SOPInstanceUID") or path)
        if uid in known:
            tree.account.file(path, f"a copy of {known[uid]}")
            continue
        known[uid] = path
        if str(dataset.get("Modality")) == "CT":
            key = (digest, str(dataset.get("SeriesInstanceUID") or Path(path).parent))
            series = scan.series.setdefault(key, _Series("CT", dataset))
            series.files.append(path)
            series.frames += int(dataset.get("NumberOfFrames") or 1)
        else:
            _add_radiograph(tree, studies, path, dataset)
    _add_series(tree, studies, scan, options)
    _add_reports(tree, studies, scan)
    if not studies and not scan.series:
        raise LayoutError(tree.root, "holds no CT slice and no radiograph", "give a folder of DICOM files")
    join_reports(tree, studies, options)
    return studies.values()


# Headers


def _headers(tree: Tree, scan: _Scan) -> Iterator[tuple[str, FileDataset, str]]:
    """(path, technical tags, digest of the patient) of every image that a study can use; the rest is accounted for."""
    for number, path in enumerate(tree.files, start=1):
        file = tree.root / path
        if tree.progress is not None and number % 1000 == 0:
            tree.progress(number)
        if _OTHER.search(path) or path.rpartition("/")[2].upper() == "DICOMDIR":
            continue
        if not _looks_dicom(file):
            if file.suffix.lower() in _NAMED:
                scan.refused.append(path)
            tree.account.file(path, "no DICOM file")
            continue
        try:
            dataset, digest = read_header(file, patient=True)
        except ReadError as error:
            scan.refused.append(path)
            if "holds no image" in error.reason and _is_report(file):
                scan.reports.append(path)
            else:
                tree.account.file(path, error.reason)
            continue
        except Exception as error:  # pydicom raises whatever a broken byte makes it raise
            scan.refused.append(path)
            tree.account.file(path, f"its header cannot be read ({type(error).__name__})")
            continue
        reason = _unfit(dataset)
        if reason:
            tree.account.file(path, reason)
        else:
            yield path, dataset, digest


def _looks_dicom(file: Path) -> bool:
    try:
        return file.is_file() and is_dicom(file)
    except OSError:
        return False


def _is_report(file: Path) -> bool:
    try:
        return identity(file).report
    except Exception:  # as above: not even the few tags can be read
        return False


def _unfit(dataset: FileDataset) -> str:
    """Why the image is neither a CT slice nor a radiograph; the words are those of the reader of CT series."""
    modality = str(dataset.get("Modality") or "")
    if str(dataset.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURE):
        return "secondary capture"
    if modality not in ("CT", *_RADIOGRAPHS):
        return f"modality {modality[:16] or 'unknown'}"
    kind = dataset.get("ImageType") or []
    if "LOCALIZER" in [str(part).upper() for part in ([kind] if isinstance(kind, str) else kind)]:
        return "localizer"
    return ""


# Studies


def _study(tree: Tree, studies: Studies, who: Identity, path: str) -> Study | None:
    """The study that a file belongs to; None, accounted for, where it contradicts an earlier file."""
    if not who.study:
        tree.account.file(path, "no StudyInstanceUID")
        return None
    subject = who.patient
    if not subject:
        subject = f"study-{who.study}"
        tree.account.note("some files have no PatientID: each of their studies counts as a subject of its own")
    study = studies.of(subject, who.study)
    if study.subject_id != subject:
        tree.account.file(path, "its study is of another patient in an earlier file")
        return None
    if who.accession:
        study.columns.setdefault("accession_number", who.accession)
    if who.sex:
        study.columns.setdefault("group_sex", who.sex)
    return study


def _add_radiograph(tree: Tree, studies: Studies, path: str, dataset: FileDataset) -> None:
    who = identity(tree.root / path)
    study = _study(tree, studies, who, path)
    if study is None:
        return
    file = radiograph(path, view_of(str(dataset.get("ViewPosition") or "")))
    study.add("xray", file._replace(rank=file.rank + (10 if who.raw else 0)))


def _add_reports(tree: Tree, studies: Studies, scan: _Scan) -> None:
    """The structured report of each study, as the reader of reports reads it."""
    for path in scan.reports:
        study = _study(tree, studies, identity(tree.root / path), path)
        if study is None:
            continue
        if study.report:
            tree.account.file(path, "the study has a report already")
            continue
        try:
            report_header(tree.root / path)
        except ReadError as error:
            tree.account.file(path, error.reason)
            continue
        study.report = path


def _add_series(tree: Tree, studies: Studies, scan: _Scan, options: Options) -> None:
    owners = _owners(scan)
    for series in scan.series.values():
        who = identity(tree.root / series.files[0])
        short = series.frames < options.min_slices
        if short:
            _leave_out(tree, series, f"a series of fewer than {options.min_slices} slices (--min-slices)")
            continue
        study = _study(tree, studies, who, series.files[0])
        if study is None:
            _leave_out(tree, series, "its study is of another patient in an earlier file")
            continue
        place, uid = _place(series, owners), ""
        if place is None and options.write_into is not None:
            place = _linked(tree, series, options.write_into, len(study.files.get("ct", [])), who)
        if place is None:
            place, uid = _shared(scan, series, owners), str(series.first.get("SeriesInstanceUID") or "")
        if place is None:
            _leave_out(tree, series, _MIXED)
            continue
        name = f"series{who.series_number}"
        study.add("ct", File(place, _rank(series), "", None, name, tuple(series.files), uid))


def _leave_out(tree: Tree, series: _Series, reason: str) -> None:
    for path in series.files:
        tree.account.file(path, reason)


def _rank(series: _Series) -> float:
    """Axial before reformatted, original before derived, then the longest series."""
    turn = [float(value) for value in series.first.get("ImageOrientationPatient") or ()]
    axial = len(turn) == 6 and abs(turn[0] * turn[4] - turn[1] * turn[3]) > 0.8
    kind: Any = series.first.get("ImageType") or [""]
    derived = str(kind if isinstance(kind, str) else kind[0]).upper() == "DERIVED"
    return (0 if axial else 1e7) + (1e6 if derived else 0) - min(series.frames, 99_999)


# Folders


def _owners(scan: _Scan) -> dict[str, set[int]]:
    """Folder -> what lies in it or below: series by number, -1 for a file that a reader refuses."""
    found: dict[str, set[int]] = defaultdict(set)
    for number, series in enumerate(scan.series.values()):
        for path in series.files:
            for folder in _ancestors(path):
                found[folder].add(number)
    for path in scan.refused:
        for folder in _ancestors(path):
            found[folder].add(-1)
    return found


def _ancestors(path: str) -> Iterator[str]:
    while path:
        path = path.rpartition("/")[0]
        yield path or "."


def _place(series: _Series, owners: dict[str, set[int]]) -> str | None:
    """The file of a multi-frame series, else the folder that holds this series alone."""
    if len(series.files) == 1:
        return series.files[0]
    folder = _folder(series)
    return folder if len(owners[folder]) == 1 else None


def _folder(series: _Series) -> str:
    """The folder in or below which all files of a series lie."""
    folders = [path.rpartition("/")[0] for path in series.files]
    return (os.path.commonpath(folders) if all(folders) else "") or "."


def _shared(scan: _Scan, series: _Series, owners: dict[str, set[int]]) -> str | None:
    """The folder in which the reader finds this series among others by its UID; None where it would not, or for long."""
    folder = _folder(series)
    if -1 in owners[folder]:
        return None
    every = list(scan.series.values())
    others = [every[number] for number in owners[folder]]
    uids = [str(other.first.get("SeriesInstanceUID") or "") for other in others]
    mine = str(series.first.get("SeriesInstanceUID") or "")
    few = sum(len(other.files) for other in others) <= _MOST_FILES
    return folder if few and mine and uids.count(mine) == 1 else None


def _linked(tree: Tree, series: _Series, into: Path, number: int, who: Identity) -> str:
    """A folder with hard links to the slices of one series, or copies where the file system has no links.

    Raises:
        LayoutError: the folder is not below the root.
    """
    if not into.resolve().is_relative_to(tree.root.resolve()):
        raise LayoutError(into, f"is not below {tree.root}", "give --write-into a folder below the root")
    folder = (
        own_folder(into)
        / (re.sub(r"[^\w.-]", "_", who.study).strip(".") or "study")
        / f"series{who.series_number}_{number}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    for target in folder.iterdir():  # of an earlier import, which may have found other slices
        target.unlink()
    for place, path in enumerate(series.files):
        target = folder / f"{place:05d}.dcm"
        try:
            os.link((tree.root / path).resolve(), target)
        except OSError:
            shutil.copy2(tree.root / path, target)
    return folder.resolve().relative_to(tree.root.resolve()).as_posix()


LAYOUTS = (
    Layout(
        "dicom",
        "a DICOM tree",
        "DICOM files in any folders",
        read,
        (".dcm", ".dicom", ".ima"),
        ("dicom-tree", "dicom-folder"),
    ),
)
