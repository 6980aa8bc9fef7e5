"""What the files of one CT series say of their values, and where they contradict each other or say that it is no HU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from medssml.readers.dicom import words
from medssml.readers.dicom_numbers import whole
from medssml.readers.errors import Flag, ReadError
from medssml.readers.image_tags import not_in_hounsfield, odd_hounsfield
from medssml.readers.series_files import EXPORT, Header
from medssml.readers.stored_bits import named

#: One value a series; a file that differs was made in another way, though its values may be right.
_SHARED = ("BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue", "ConvolutionKernel", "KVP")
_LISTED = 3


class Rescale(NamedTuple):
    """What one frame says of its values. slope, intercept: None where not stated. kind: RescaleType, [] where not stated."""

    path: Path
    slope: float | None
    intercept: float | None
    kind: list[str]

    def told(self) -> str:
        """What is stated, in words."""
        stated = [("RescaleSlope", self.slope), ("RescaleIntercept", self.intercept)]
        return " and ".join(f"{name} {value:g}" for name, value in stated if value is not None) or "no rescale"


def check_values(headers: Sequence[Header], rescales: Sequence[Rescale], path: Path) -> list[str]:
    """Notes on what the files say of their values.

    Raises:
        ReadError: some files state a rescale and others none, or other types; or the tags say that it is no HU.
    """
    _check_rescale(rescales, path)
    for header in headers:
        if header.dataset.get("ModalityLUTSequence"):
            reason = "maps its values to HU by a table (ModalityLUTSequence), which is not read for CT"
            raise ReadError(
                header.path, reason, "export the series with RescaleSlope and RescaleIntercept", code="units"
            )
    by_path = {header.path: header for header in headers}
    for rescale in rescales:
        _check_offset(rescale, by_path[rescale.path])
        if why := not_in_hounsfield(by_path[rescale.path].dataset, rescale.kind):
            raise ReadError(rescale.path, f"does not hold HU ({why})", "name a series in HU", code="units")
    return [*_odd(headers, rescales), *_differences(headers, rescales)]


def _check_offset(rescale: Rescale, header: Header) -> None:
    unsigned = not whole(header.dataset, "PixelRepresentation", 0, header.path)
    slope = 1.0 if rescale.slope is None else rescale.slope
    if unsigned and (rescale.intercept or 0.0) >= 0 < slope:
        stated = "no RescaleIntercept" if rescale.intercept is None else f"RescaleIntercept {rescale.intercept:g}"
        reason = f"stores unsigned values with {stated}: no value can be below 0 HU"
        fix = "export the series with its rescale (water is 0 HU, air -1000)"
        raise ReadError(header.path, reason, fix, code="units")


def _check_rescale(rescales: Sequence[Rescale], path: Path) -> None:
    ways: dict[tuple[bool, bool], list[Rescale]] = {}
    for one in rescales:
        ways.setdefault((one.slope is not None, one.intercept is not None), []).append(one)
    if len(ways) > 1:
        few, many = sorted(ways.values(), key=len)[-2:]
        files, every = _files(few), _files(rescales)
        what = f"{len(files)} of {len(every)} files state {few[0].told()} ({named(files)})"
        if len(every) == 1:
            what = f"{len(few)} of {len(rescales)} frames state {few[0].told()}"
        reason = f"{what}, others {many[0].told()}: they contradict each other"
        raise ReadError(path, reason, EXPORT, code="units")
    kinds: dict[str, list[Rescale]] = {}
    for one in rescales:
        if one.kind:
            kinds.setdefault(one.kind[0], []).append(one)
    if len(kinds) > 1:
        reason = f"RescaleType differs within the series: {_groups({k: _files(v) for k, v in kinds.items()})}"
        raise ReadError(path, reason, EXPORT, code="units")


def _odd(headers: Sequence[Header], rescales: Sequence[Rescale]) -> list[str]:
    """Flags for what is odd in any file, with how many files have it."""
    by_path = {header.path: header for header in headers}
    found: dict[str, set[Path]] = {}
    for rescale in rescales:
        for text in odd_hounsfield(by_path[rescale.path].dataset, rescale.kind):
            found.setdefault(text, set()).add(rescale.path)
    lossy = {header.path for header in headers if words(header.dataset, "LossyImageCompression") == ["01"]}
    burned = {header.path for header in headers if words(header.dataset, "BurnedInAnnotation") == ["YES"]}
    notes = [Flag(f"{text} in {len(paths)} of {len(headers)} files") for text, paths in found.items()]
    if lossy:
        notes.append(Flag(f"{len(lossy)} of {len(headers)} files were compressed with loss"))
    if burned:
        notes.append(Flag(f"burned-in annotation in {len(burned)} of {len(headers)} files"))
    if rescales[0].intercept is None:
        notes.append(
            Flag(f"{len(headers)} of {len(headers)} files state no rescale: stored values taken as HU", "assumed")
        )
    return list(notes)


def _differences(headers: Sequence[Header], rescales: Sequence[Rescale]) -> list[str]:
    """Flags for tags that a series shares, where its files state several values, or some state none."""
    found = []
    for tag in _SHARED:
        groups: dict[str, list[Path]] = {}
        for header in headers:
            stated = "\\".join(map(_plain, words(header.dataset, tag)))
            groups.setdefault(stated[:32] or "none", []).append(header.path)
        if len(groups) > 1:
            found.append(f"{tag} differs within the series: {_groups(groups)}")
    # a rescale of its own in every slice is legal, and what some scanners write; a few that lie elsewhere are odd
    offsets: dict[str, list[Path]] = {}
    for one in rescales:
        offsets.setdefault(f"{one.intercept or 0:g}", []).append(one.path)
    if 1 < len(offsets) <= len(rescales) / 2:
        found.append(f"RescaleIntercept differs within the series: {_groups(offsets)}")
    return [Flag(text) for text in found]


def _plain(text: str) -> str:
    """A number in its shortest form, so that 120 and 120.0 are the same; any other text as it is."""
    try:
        return f"{float(text):g}"
    except ValueError:
        return text


def _groups(groups: dict[str, list[Path]]) -> str:
    """The values, the most frequent first, with the files of all but that one."""
    order = sorted(groups.items(), key=lambda item: -len(item[1]))
    told = [f"{order[0][0]} in {len(order[0][1])} files"]
    told += [f"{value} in {len(paths)} ({named(paths)})" for value, paths in order[1:_LISTED]]
    if len(order) > _LISTED:
        told.append(f"{len(order) - _LISTED} more values")
    return ", ".join(told)


def _files(rescales: Iterable[Rescale]) -> list[Path]:
    return list(dict.fromkeys(one.path for one in rescales))
