"""Which files below a folder are the slices of one CT series, and what of the others is left out."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import frame_shape, is_dicom, read_header, words
from medssml.readers.dicom_file import lost_header
from medssml.readers.dicom_numbers import numbers
from medssml.readers.errors import Flag, Note, ReadError
from medssml.readers.image_tags import SECONDARY_CAPTURE, modality_of
from medssml.readers.stored_bits import named

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

MAX_FILES = 20_000
EXPORT = "export the series again, complete and alone in its folder"
_DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_SCOUT_SLICES = 3
_COUNTED = 4
_DIGITS = re.compile(r"\d+")


class Header(NamedTuple):
    """The technical tags of one file. patient: a digest of the patient's id."""

    path: Path
    dataset: FileDataset
    patient: str


def slice_headers(path: Path, series: str | None, notes: list[str]) -> list[Header]:
    """The headers of the slices of one series at `path`, a folder or a file; what is none is counted in `notes`.

    Args:
        series: SeriesInstanceUID; of several series, this one alone.

    Raises:
        ReadError: no CT slice, none of `series`, several series or patients, slices of several sizes, a broken file.
    """
    headers = _ct_headers(path, notes)
    headers = _without_scouts(headers, notes) if series is None else _of_series(headers, series, path)
    _check_one_series(headers, path)
    unstated = [header.path for header in headers if not modality_of(header.dataset)]
    if unstated:
        told = f"{len(unstated)} of {len(headers)} files state no Modality ({named(unstated)}): taken as CT"
        notes.append(Flag(told, "assumed"))
    for note, count in Counter(lost_header(header.dataset) for header in headers).items():
        if note:
            told = f"{count} of {len(headers)} files {note}"
            notes.append(Flag(told, note.code) if isinstance(note, Flag) else told)
    return headers


def no_slice(dataset: FileDataset) -> str:
    """Why an image is no slice of a CT, "" where it is one."""
    if str(dataset.get("SOPClassUID", "")).startswith(SECONDARY_CAPTURE):
        return "secondary capture"
    modality = modality_of(dataset)
    if modality not in ("CT", ""):
        return f"modality {modality}"
    placed = any(tag in dataset for tag in ("ImagePositionPatient", "PerFrameFunctionalGroupsSequence"))
    if not modality and not placed and "Rows" in dataset:  # without Rows, it is damaged, and refused
        return "images that state no Modality and no position"
    return "localizer" if "LOCALIZER" in words(dataset, "ImageType") else ""


def _files(folder: Path) -> Iterator[Path]:
    root = folder.resolve()
    count = 0
    for parent, names, files in os.walk(folder):
        names.sort()
        for name in sorted(files):
            file = Path(parent, name)
            if name.startswith("."):
                continue
            if file.is_symlink() and not file.resolve().is_relative_to(root):
                raise ReadError(
                    file, "is a link that leaves its folder", "copy the file into the folder", code="outside"
                )
            count += 1
            if count > MAX_FILES:
                raise ReadError(
                    folder, f"holds more than {MAX_FILES:,} files", "name the folder of one series", code="too_large"
                )
            yield file


def _ct_headers(path: Path, notes: list[str]) -> list[Header]:
    headers: list[Header] = []
    left_out: Counter[str] = Counter()
    foreign: list[Path] = []
    for file in _files(path) if path.is_dir() else [path]:
        looks_dicom = file.suffix.lower() in _DICOM_SUFFIXES or file == path
        if not looks_dicom and (file.stat().st_size == 0 or not is_dicom(file)):
            foreign.append(file)
            continue
        if file.name.upper() == "DICOMDIR":
            left_out["DICOMDIR"] += 1
            continue
        dataset, patient = read_header(file, patient=True, skip=no_slice)
        reason = no_slice(dataset)
        if reason:
            left_out[reason] += 1
        else:
            headers.append(Header(file, dataset, patient))
    _check_foreign(foreign, headers)
    if foreign:
        left_out["not DICOM"] = len(foreign)
    notes += [Note(f"{count} file{'s' * (count > 1)} left out: {reason}") for reason, count in left_out.items()]
    if not headers:
        found = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "no file"
        raise ReadError(path, f"holds no CT slice ({found})", "name a folder with one CT series", code="mixed")
    return headers


def _check_foreign(foreign: list[Path], headers: list[Header]) -> None:
    """A file that is no DICOM and is named as the slices beside it is a slice that was cut or overwritten."""
    shapes = {(header.path.parent, _DIGITS.sub("0", header.path.name)) for header in headers}
    for file in foreign:
        if (file.parent, _DIGITS.sub("0", file.name)) in shapes:
            size = file.stat().st_size
            reason = f"is no DICOM file ({size:,} bytes), though it is named as the slices beside it: cut or damaged"
            raise ReadError(file, reason, "copy the file again", code="truncated")


def _of_series(headers: list[Header], series: str, path: Path) -> list[Header]:
    mine = [header for header in headers if str(header.dataset.get("SeriesInstanceUID", "")) == series]
    if not mine:
        others = len({str(header.dataset.get("SeriesInstanceUID", "")) for header in headers})
        reason = f"holds no slice of the series that the table names ({others} other CT series)"
        raise ReadError(path, reason, "correct the SeriesInstanceUID, or the folder", code="mixed")
    return mine


def _without_scouts(headers: list[Header], notes: list[str]) -> list[Header]:
    """Without series of a few images in another plane than the largest: localizers that do not say so."""
    groups: dict[str, list[Header]] = {}
    for header in headers:
        groups.setdefault(str(header.dataset.get("SeriesInstanceUID", "")), []).append(header)
    largest = max(groups.values(), key=len)
    plane = _normal(largest[0])
    kept = list(largest)
    for group in groups.values():
        normal = _normal(group[0])
        if group is largest:
            continue
        other_plane = plane is not None and normal is not None and abs(float(plane @ normal)) < 0.9
        if other_plane and len(group) <= _SCOUT_SLICES < len(largest):
            reason = f"{len(group)} file{'s' * (len(group) > 1)} left out: localizer (another plane)"
            notes.append(Flag(reason, "left_out"))
        else:
            kept += group
    return kept


def _normal(header: Header) -> NDArray[np.float64] | None:
    """(3,) of a file's plane, None where it does not state one."""
    try:
        orientation = numbers(header.dataset, "ImageOrientationPatient", 6, header.path)
    except ReadError:
        return None
    return None if orientation is None else np.cross(orientation[:3], orientation[3:])


def _check_one_series(headers: list[Header], path: Path) -> None:
    patients = len({header.patient for header in headers})
    if patients > 1:
        raise ReadError(
            path, f"holds slices of {patients} patients", "separate the patients, one folder each", code="mixed"
        )
    series = Counter(str(header.dataset.get("SeriesInstanceUID", "")) for header in headers)
    if len(series) == len(headers) > _COUNTED:
        reason = f"holds {len(headers)} CT files, each with a SeriesInstanceUID of its own: an export made them anew"
        raise ReadError(path, reason, "export again with UIDs that are mapped consistently", code="mixed")
    if len(series) > 1:
        counts = sorted(series.values(), reverse=True)
        more = f" and {len(counts) - _COUNTED} more" if len(counts) > _COUNTED else ""
        reason = f"holds {len(series)} CT series ({' + '.join(map(str, counts[:_COUNTED]))}{more} files)"
        fix = "name the folder of one series, or its SeriesInstanceUID in a column such as ct_series"
        raise ReadError(path, reason, fix, code="mixed")
    sizes = Counter(frame_shape(header.dataset, header.path)[1:] for header in headers)
    if len(sizes) > 1:
        found = ", ".join(f"{count} of {rows} x {columns}" for (rows, columns, _), count in sizes.most_common(3))
        raise ReadError(path, f"holds slices of {len(sizes)} sizes ({found})", EXPORT, code="mixed")
    samples = next(iter(sizes))[2]
    if samples != 1:
        raise ReadError(path, f"has {samples} samples per pixel, a CT slice has 1", EXPORT)
