"""Any tree of DICOM files: grouped by series, whatever the folders are called; CT series and radiographs by study.

A CT series is named by its folder; where other series lie there too, by its SeriesInstanceUID in `ct_series` as well. Where the
folder holds something that the reader would refuse (a file that is no image), or very many files, the series is left out. With
`Options.write_into` the slices of a series that has no folder of its own are linked into one.
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssml.importers.account import Aside, LayoutError
from medssml.importers.dicom_copies import Copies
from medssml.importers.identity import Identity, identity
from medssml.importers.outputs import own_folder
from medssml.importers.reports import join_reports
from medssml.importers.study import File, Layout, Options, Studies, Study, radiograph, view_of
from medssml.importers.tree import Tree
from medssml.readers import ct_header
from medssml.readers.dicom import is_dicom, read_header, words
from medssml.readers.errors import ReadError
from medssml.readers.image_tags import RADIOGRAPHS, is_raw, modality_of, other_part
from medssml.readers.image_tags import view_of as stated_view
from medssml.readers.nifti import Given
from medssml.readers.report import report_header
from medssml.readers.series_files import no_slice

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_OTHER = re.compile(
    r"\.(txt|csv|tsv|json|xml|html?|pdf|png|jpe?g|gz|nii|zip|tgz|tar|md|xlsx?|py|log|npz|edf)$", re.IGNORECASE
)
#: Endings that readers take for DICOM without looking.
_NAMED = (".dcm", ".dicom", ".ima")
#: Views in the words of the readers -> of datasets.
_VIEWS = {"PA": "PA", "AP": "AP", "LATERAL": "lateral", "OBLIQUE": "other"}
#: So many files of one folder, each a series of its own, are one scan whose UIDs were made anew.
_SCATTERED = 8
_ANEW = "one of many CT files, each with a SeriesInstanceUID of its own: an export made them anew; fix: map UIDs consistently"
#: The reader of one series looks into the header of every file in the folder, about a second for a thousand.
_MOST_FILES = 5_000
#: Behind every series that can be read.
_UNREADABLE = 1e9
#: Images that are asked what they state where none was of a study.
_LOOKED_AT = 200
_NEEDED: dict[str, Callable[[Identity], str]] = {
    "Modality": lambda w: w.modality,
    "StudyInstanceUID": lambda w: w.study,
}
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
    """What a tree holds. series: CT series by (patient's digest, uid). images: DICOM files with an image. refused: files
    that no reader of images takes; reports: the structured reports among them. parts: radiograph -> the part of the body
    that it states, where that is not the chest."""

    series: dict[tuple[str, str], _Series] = field(default_factory=dict)
    images: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    reports: list[str] = field(default_factory=list)
    parts: dict[str, str] = field(default_factory=dict)


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per StudyInstanceUID; the longest axial CT series is `ct`, the best frontal radiograph is `xray`."""
    scan = _Scan()
    studies = Studies()
    copies = Copies(tree)
    for path, dataset, digest in _headers(tree, scan):
        original = copies.original(path, dataset, digest)
        if original:
            tree.account.file(path, Aside(f"a copy of {original}"))
        elif modality_of(dataset) == "CT":
            key = (digest, str(dataset.get("SeriesInstanceUID") or Path(path).parent))
            series = scan.series.setdefault(key, _Series("CT", dataset))
            series.files.append(path)
            series.frames += int(dataset.get("NumberOfFrames") or 1)
        else:
            _add_radiograph(tree, studies, path, dataset)
            if part := other_part(dataset):
                scan.parts[path] = part
    _add_series(tree, studies, scan, options)
    _choose_readable(tree, studies)
    _note_parts(tree, studies, scan)
    _add_reports(tree, studies, scan)
    if not studies:
        _refuse(tree, scan)
    join_reports(tree, studies, options)
    return studies.values()


def _refuse(tree: Tree, scan: _Scan) -> None:
    """Where no image is of a study.

    Raises:
        LayoutError: what none of the images states, or that there are none; series that no study can use have reasons of
            their own.
    """
    some = [identity(tree.root / path) for path in scan.images[:_LOOKED_AT]]
    blank = [tag for tag, of in _NEEDED.items() if some and not any(of(who) for who in some)]
    if blank:
        count = f"{len(scan.images):,} DICOM image{'s' * (len(scan.images) > 1)}"
        reason = f"holds {count}, none of which states its {' or its '.join(blank)}"
        raise LayoutError(tree.root, reason, "make a table with one row per image, and medssml import csv")
    if not scan.series:
        raise LayoutError(tree.root, "holds no CT slice and no radiograph", "give a folder of DICOM files")


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
            named = file.suffix.lower() in _NAMED
            scan.refused += [path] if named else []
            tree.account.file(path, "no DICOM file" if named else Aside("no DICOM file"))
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
        scan.images.append(path)
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
    except ReadError:
        return False


def _unfit(dataset: FileDataset) -> str:
    """Why the image is neither a CT slice nor a radiograph; the words are those of the reader of CT series."""
    modality = modality_of(dataset)
    if not modality:
        return "states no Modality"
    if modality in RADIOGRAPHS:
        return ""
    return Aside(no_slice(dataset))


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
    file = radiograph(path, _view(dataset))
    study.add("xray", file._replace(rank=file.rank + (10 if other_part(dataset) else 0)))


def _view(dataset: FileDataset) -> str:
    """The view as the reader of radiographs sees it; one of its own, which is no column, for what is not to be looked at."""
    if is_raw(dataset):
        return "raw"
    seen = stated_view(dataset)
    return _VIEWS[seen] if seen else view_of(" ".join(words(dataset, "ViewPosition")))


def _add_reports(tree: Tree, studies: Studies, scan: _Scan) -> None:
    """The structured report of each study, as the reader of reports reads it."""
    for path in scan.reports:
        study = _study(tree, studies, identity(tree.root / path), path)
        if study is None:
            continue
        if study.report:
            tree.account.file(path, Aside("the study has a report already"))
            continue
        try:
            report_header(tree.root / path)
        except ReadError as error:
            tree.account.file(path, error.reason)
            continue
        study.report = path


def _add_series(tree: Tree, studies: Studies, scan: _Scan, options: Options) -> None:
    owners = _owners(scan)
    singles = Counter(_place_of(key, series) for key, series in scan.series.items())
    for key, series in scan.series.items():
        if singles[_place_of(key, series)] >= _SCATTERED and series.frames == 1:
            _leave_out(tree, series, _ANEW)
            continue
        if series.frames < options.min_slices:
            _leave_out(tree, series, Aside(f"a series of fewer than {options.min_slices} slices (--min-slices)"))
            continue
        who = identity(tree.root / series.files[0])
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


def _place_of(key: tuple[str, str], series: _Series) -> tuple[str, str] | None:
    """(patient's digest, folder) of a series that is one slice; None of others."""
    return (key[0], series.files[0].rpartition("/")[0]) if series.frames == 1 else None


def _choose_readable(tree: Tree, studies: Studies) -> None:
    """Of several CT series of a study the best one that the reader takes comes first, from its headers."""
    passed_over: Counter[str] = Counter()
    for study in studies.values():
        files = sorted(study.files.get("ct", []), key=lambda file: file.rank)
        for place, file in enumerate(files[:-1]):
            try:
                ct_header(tree.root / file.path, Given(series=file.series or None))
                break
            except ReadError as error:
                files[place] = file._replace(rank=file.rank + _UNREADABLE)
                passed_over[error.reason.partition(" (")[0]] += 1
        if files:
            study.files["ct"] = files
    for reason, count in passed_over.items():
        tree.account.note(f"{count:,} CT series passed over for the next best of the study: {reason}")


def _note_parts(tree: Tree, studies: Studies, scan: _Scan) -> None:
    """Studies that have no radiograph of the chest, and so one of another part of the body in its column."""
    best = (
        min(files, key=lambda file: file.rank).path for study in studies.values() if (files := study.files.get("xray"))
    )
    shown = Counter(scan.parts[path] for path in best if path in scan.parts)
    if shown:
        parts = ", ".join(f"{part} x {count:,}" for part, count in shown.most_common(5))
        tree.account.note(
            f"{shown.total():,} studies have a radiograph of another part of the body than the chest alone: {parts}"
        )


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
