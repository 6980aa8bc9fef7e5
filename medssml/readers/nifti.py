"""NIfTI-1 and -2, plain or gzipped: the header without the voxels, and the voxels with the CRC verified.

nibabel decodes the header; the voxels are read here, because nibabel stops before the end of a stream and so never
compares the gzip checksum: a flipped bit would decode to wrong voxels, silently.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError, declared_bytes, human, require_file
from medssml.readers.geometry import Affine, check_affine, check_spacing, spacing_of
from medssml.readers.inflate import CHUNK, GZIP_MAGIC, inflate, inflated_length

if TYPE_CHECKING:
    from nibabel.nifti1 import Nifti1Header

MAX_OFFSET = 1 << 26
"""Last byte at which voxels may start: extensions of a header are small."""
_REEXPORT = "export the volume again from its source"
#: By so much may the squared length of a quaternion pass 1 for the rounding of three 32-bit numbers.
_ROUNDED = 1e-4
#: What is left of 1 for the first number of a quaternion: below it, that number is 0 (as in nifti1_io).
_NO_ANGLE = 1e-7
_UNITS_TO_MM = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


class Given(NamedTuple):
    """What is known of a volume from elsewhere, the table of a dataset.

    spacing: (3,) mm along the axes of the file, and slope, intercept: stored value -> HU, where a NIfTI header is blank.
    series: SeriesInstanceUID of the one that is meant, where a DICOM folder holds several.
    """

    spacing: tuple[float, float, float] | None = None
    slope: float | None = None
    intercept: float | None = None
    series: str | None = None

    def identity(self) -> dict[str, Any]:
        """What a prepared volume depends on; no word of a series where none is named, so that older entries hold."""
        return {name: value for name, value in self._asdict().items() if name != "series" or value is not None}


class Layout(NamedTuple):
    """Where the voxels of a file are and what they mean.

    shape: (3,) voxels. affine: (4, 4) voxel -> RAS mm. offset, nbytes: position and length of the voxels in the
    (inflated) stream. slope, intercept: stored value -> HU.
    """

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    affine: Affine
    offset: int
    nbytes: int
    slope: float
    intercept: float
    compressed: bool
    notes: tuple[str, ...]


def nifti_layout(path: str | Path, given: Given | None = None) -> Layout:
    """The header of a .nii or .nii.gz, validated; reads a few hundred bytes and the file's length.

    `given` fills what the header leaves blank, and must agree with what it states.

    Raises:
        ReadError: not NIfTI, truncated, several volumes, no usable geometry, or a declared size over the limit.
    """
    path = require_file(path)
    block, compressed = _header_block(path)
    header = _parse(block, path)
    notes: list[str] = []
    shape = _shape(header, path)
    dtype = _dtype(header, path)
    affine = _affine(header, path, notes, given or Given())
    nbytes = declared_bytes(path, shape, dtype.itemsize)
    offset = float(header["vox_offset"])
    first = int(header["sizeof_hdr"])
    if not (first <= offset < MAX_OFFSET):
        raise ReadError(path, f"voxels start at byte {offset:g}, expected {first} to {MAX_OFFSET}", _REEXPORT)
    slope, intercept = _scaling(header, path, given or Given(), notes)
    layout = Layout(path, shape, dtype, affine, int(offset), nbytes, slope, intercept, compressed, tuple(notes))
    extra = _check_length(layout)
    return layout._replace(notes=(*notes, extra)) if extra else layout


def has_blank_header(path: str | Path) -> bool:
    """Whether the header states no geometry: no orientation, or the identity in steps of 1 mm from an origin of 0.

    Raises:
        ReadError: not NIfTI, or truncated.
    """
    path = require_file(path)
    header = _parse(_header_block(path)[0], path)
    affine = _stated_affine(header, path)
    return affine is None or _is_unmeasured(affine)


def nifti_voxels(layout: Layout) -> NDArray[Any]:
    """(i, j, k) stored values of the file, in its own axes, native byte order, Fortran order.

    Raises:
        ReadError: the stream ends early, holds more than it declares, or its checksum does not match.
    """
    if layout.compressed:
        stream = inflate(layout.path, layout.offset + layout.nbytes, _REEXPORT)
        values = stream[layout.offset :].view(layout.dtype)
    else:
        count = layout.nbytes // layout.dtype.itemsize
        values = np.fromfile(layout.path, layout.dtype, count, offset=layout.offset)
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    return values.reshape(layout.shape, order="F")


def _header_block(path: Path) -> tuple[bytes, bool]:
    with path.open("rb") as file:
        head = file.read(CHUNK)
    if head[:2] != GZIP_MAGIC:
        return head[:540], False
    try:
        return zlib.decompressobj(31).decompress(head, 540), True
    except zlib.error as error:
        raise ReadError(
            path, f"gzip stream is damaged at its start ({error})", "copy the file again", code="damaged"
        ) from error


def _parse(block: bytes, path: Path) -> Nifti1Header:
    from nibabel.nifti1 import Nifti1Header
    from nibabel.nifti2 import Nifti2Header

    size = block[:4]
    if size in (b"\x5c\x01\0\0", b"\0\0\x01\x5c"):
        kind, length, magic = Nifti1Header, 348, block[344:348]
    elif size in (b"\x1c\x02\0\0", b"\0\0\x02\x1c"):
        kind, length, magic = Nifti2Header, 540, block[4:8]
    else:
        raise ReadError(
            path, "is not NIfTI (wrong first bytes)", "name a .nii, .nii.gz or a DICOM folder", code="format"
        )
    if len(block) < length:
        raise ReadError(
            path, f"is truncated: {len(block)} of {length} header bytes", "copy the file again", code="truncated"
        )
    if magic[:3] in (b"ni1", b"ni2"):
        raise ReadError(path, "is the header of an .hdr/.img pair", "convert it to one .nii.gz", code="format")
    if magic[:3] not in (b"n+1", b"n+2"):
        raise ReadError(path, f"is not NIfTI (magic {magic!r})", "convert it to .nii.gz", code="format")
    # our own checks follow: nibabel's write to the log without the file's name
    return kind(block[:length], check=False)


def _shape(header: Nifti1Header, path: Path) -> tuple[int, int, int]:
    dim = [int(n) for n in header["dim"]]
    if not 1 <= dim[0] <= 7:
        raise ReadError(path, f"declares {dim[0]} dimensions", _REEXPORT)
    sizes = dim[1 : dim[0] + 1]
    if len(sizes) < 3:
        raise ReadError(path, f"has {len(sizes)} dimensions, a CT volume has 3", "name a volume", code="mixed")
    if any(n not in (0, 1) for n in sizes[3:]):  # 0 stands for 1 in what some old software writes
        volumes = int(np.prod(sizes[3:]))
        raise ReadError(
            path, f"has {len(sizes)} dimensions: {volumes} volumes in one file", "keep one volume", code="mixed"
        )
    return sizes[0], sizes[1], sizes[2]


def _dtype(header: Nifti1Header, path: Path) -> np.dtype[Any]:
    code = int(header["datatype"])
    try:
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel raises HeaderDataError or KeyError for a code that it does not know
        raise ReadError(path, f"has data type code {code}, which is none", _REEXPORT) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise ReadError(path, f"holds {dtype} values, expected integers or floats", "export gray values")
    bits = int(header["bitpix"])
    if bits not in (0, dtype.itemsize * 8):
        raise ReadError(path, f"states {bits} bits per voxel for {dtype} values", _REEXPORT, code="damaged")
    return dtype


def _scaling(header: Nifti1Header, path: Path, given: Given, notes: list[str]) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if np.isinf(slope) or np.isinf(intercept):
        raise ReadError(path, f"has scl_slope {slope:g}, scl_inter {intercept:g}", _REEXPORT)
    unread = intercept not in (0.0, given.intercept) and not np.isnan(intercept)
    if np.isnan(slope) or (slope == 0 and unread):
        told = f"scl_slope is {slope:g}, which is none: "
        told += f"scl_inter {intercept:g} is not applied either" if unread else "values taken as they are stored"
        notes.append(Flag(told, "assumed"))
    elif np.isnan(intercept) and slope != 0:
        notes.append(Flag("scl_inter is nan, which is none: 0 taken", "assumed"))
    if np.isnan(slope) or slope == 0 or (slope, intercept) == (1.0, 0.0):  # the header states none
        return (
            1.0 if given.slope is None else float(given.slope),
            0.0 if given.intercept is None else float(given.intercept),
        )
    known = (
        given.slope is None or np.isclose(given.slope, slope),
        given.intercept is None or given.intercept == intercept,
    )
    if not all(known):
        reason = f"states {slope:g} and {intercept:g} for its scale, the table {given.slope} and {given.intercept}"
        raise ReadError(path, reason, "empty the cells of the table, or correct them", code="units")
    return slope, 0.0 if np.isnan(intercept) else intercept


def _affine(header: Nifti1Header, path: Path, notes: list[str], given: Given) -> Affine:
    """(4, 4) voxel -> RAS mm: sform, else qform, else pixdim or what is given; contradictions are refused."""
    steps = np.abs(np.asarray(header["pixdim"][1:4], np.float64))
    form = _stated_affine(header, path)
    stated = form is not None
    affine = _blank_affine(header, steps, notes, given, path) if form is None else form
    check_affine(affine, path)
    if stated:
        _note_made_up(affine, notes)
    unmeasured = stated and given.spacing is not None and _is_unmeasured(affine)
    if unmeasured:
        affine = affine @ np.diag([*_given_spacing(given, path), 1.0])
    elif stated:
        _check_steps(affine, steps, path)
        if given.spacing is not None:
            _check_steps(affine, np.asarray(given.spacing, np.float64), path, "the table")
    if int(header["sform_code"]) > 0 and int(header["qform_code"]) > 0:
        _check_unused_qform(header, affine, path, notes)
    in_mm = given.spacing is not None and (unmeasured or not stated)
    affine = _to_mm(affine, 2 if in_mm else int(header["xyzt_units"]) & 7, notes)
    check_spacing(spacing_of(affine), path)
    return affine


def _stated_affine(header: Nifti1Header, path: Path) -> Affine | None:
    """(4, 4) of the sform, else of the qform; None where the header states neither."""
    if int(header["sform_code"]) > 0:
        return np.array(header.get_sform(), np.float64)
    if int(header["qform_code"]) > 0:
        return _qform(header, np.abs(np.asarray(header["pixdim"][1:4], np.float64)), path)
    return None


def _is_unmeasured(affine: Affine) -> bool:
    """Steps of 1 mm from an origin of 0 are what a library writes when it is told no geometry: as good as blank."""
    return np.allclose(np.abs(affine), np.eye(4))


def _qform(header: Nifti1Header, steps: NDArray[np.float64], path: Path) -> Affine:
    """(4, 4) of the quaternion and `steps` (3,) mm, by the text of NIfTI-1: what rounding took from its length is given back,
    and pixdim[0] mirrors the third axis where it is negative, not where it is 0.

    Raises:
        ReadError: no rotation, for more than rounding.
    """
    vector = np.array([float(header[f"quatern_{letter}"]) for letter in "bcd"])
    length = float(vector @ vector)
    if not length <= 1 + _ROUNDED:
        raise ReadError(
            path, f"qform has a quaternion of length {length**0.5:.4g}, expected 1", _REEXPORT, code="geometry"
        )
    half_turn = 1.0 - length < _NO_ANGLE
    a = 0.0 if half_turn else (1.0 - length) ** 0.5
    b, c, d = vector / length**0.5 if half_turn else vector
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    mirror = -1.0 if float(header["pixdim"][0]) < 0 else 1.0
    affine = np.eye(4)
    affine[:3, :3] = rotation * steps * [1.0, 1.0, mirror]
    affine[:3, 3] = [float(header[f"qoffset_{letter}"]) for letter in "xyz"]
    return affine


def _check_unused_qform(header: Nifti1Header, sform: Affine, path: Path, notes: list[str]) -> None:
    """The sform is used: a qform that is broken is told, one that contradicts it is refused."""
    try:
        qform = _qform(header, spacing_of(sform), path)
    except ReadError as error:
        notes.append(Flag(f"{error.reason}; the sform is used"))
        return
    if not np.isfinite(qform).all():
        notes.append(Flag("qform holds NaN or infinite values; the sform is used"))
        return
    _check_forms(sform, qform, path, notes)


def _note_made_up(affine: Affine, notes: list[str]) -> None:
    """A scanner's origin is never 0 in all three axes to the last digit; what converters write without a geometry is."""
    signs = tuple(np.sign(np.diag(affine)[:3]))
    if np.count_nonzero(affine) == 4 and signs in ((1, 1, 1), (-1, -1, 1)):
        reason = (
            "the identity for an orientation and 0 for an origin: a converter wrote them, left and right are uncertain"
        )
        notes.append(Flag(reason, "assumed"))


def _blank_affine(
    header: Nifti1Header, steps: NDArray[np.float64], notes: list[str], given: Given, path: Path
) -> Affine:
    """The axes as Analyze 7.5 has them, x to the left, in steps of pixdim, else of what is given."""
    notes.append(Flag("the header states no orientation (both codes are 0): x taken to grow to the left", "assumed"))
    if given.spacing is None:
        return np.array(header.get_base_affine(), np.float64)
    spacing = _given_spacing(given, path)
    if np.isfinite(steps).all() and steps.min() > 0 and not np.allclose(steps, 1.0):
        _check_steps(np.diag([*steps, 1.0]), spacing, path, "the table")
    affine = np.diag([-1.0, 1.0, 1.0, 1.0]) @ np.diag([*spacing, 1.0])  # as nibabel does without a form
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(header["dim"][1:4], np.float64) - 1) / 2)
    return affine


def _given_spacing(given: Given, path: Path) -> NDArray[np.float64]:
    """(3,) mm that the table gives."""
    spacing = np.asarray(given.spacing, np.float64)
    if spacing.shape != (3,) or not np.isfinite(spacing).all() or spacing.min() <= 0:
        reason = f"has no geometry, and the table gives spacing {given.spacing}"
        raise ReadError(path, reason, "give three lengths in mm", code="geometry")
    return spacing


def _check_forms(sform: Affine, qform: Affine, path: Path, notes: list[str]) -> None:
    """Two orientations that differ by another axis or a mirror cannot both be meant; a small turn is noted."""
    angle = _angle_between(sform, qform)
    if angle > 45:
        reason = f"sform and qform contradict each other by {angle:.0f} degrees: left and right are uncertain"
        raise ReadError(path, reason, "correct the header, or write it again with one of the two", code="geometry")
    if angle > 10:
        notes.append(Flag(f"sform and qform differ by {angle:.0f} degrees; the sform is used"))


def _check_steps(affine: Affine, steps: NDArray[np.float64], path: Path, source: str = "pixdim") -> None:
    found = spacing_of(affine)
    known = np.isfinite(steps) & (steps > 0)
    if (np.abs(found - steps)[known] > 0.01 * steps[known]).any():
        figures = " x ".join(f"{x:.3g}" for x in found), " x ".join(f"{x:.3g}" for x in steps)
        reason = f"contradictory spacing: the affine says {figures[0]} mm, {source} {figures[1]} mm"
        raise ReadError(path, reason, _REEXPORT, code="geometry")


def _angle_between(first: Affine, second: Affine) -> float:
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = (first[:3, :3] / spacing_of(first) * (second[:3, :3] / spacing_of(second))).sum(axis=0)
    worst = float(np.nan_to_num(cosines, nan=1.0).min())
    return float(np.degrees(np.arccos(np.clip(worst, -1, 1))))


def _to_mm(affine: Affine, unit: int, notes: list[str]) -> Affine:
    factor = _UNITS_TO_MM.get(unit, 1.0)
    if factor == 1.0:
        return affine
    notes.append(f"lengths are in {'m' if unit == 1 else 'um'}: converted to mm")
    scaled = affine.copy()
    scaled[:3] *= factor
    return scaled


def _check_length(layout: Layout) -> str:
    """Finds a truncated file without inflating it: gzip ends with the inflated length, modulo 2^32.

    Returns:
        a note about what follows the voxels, "" where nothing does.

    Raises:
        ReadError: too short, or longer by a slice or more, so that the shape in the header is wrong.
    """
    size, expected = layout.path.stat().st_size, layout.offset + layout.nbytes
    if not layout.compressed:
        if size < expected:
            raise ReadError(
                layout.path, f"is truncated: {size:,} of {expected:,} bytes", "copy the file again", code="truncated"
            )
        return _spare(layout, size - expected)
    with layout.path.open("rb") as file:
        file.seek(-4, 2)
        stored = int.from_bytes(file.read(4), "little")
    if stored == expected % 2**32:
        return ""
    # several members or padding are legal too: only the whole stream can tell
    return _spare(layout, inflated_length(layout.path, expected, _REEXPORT) - expected)


def _spare(layout: Layout, spare: int) -> str:
    if spare <= 0:
        return ""
    if spare >= layout.nbytes // layout.shape[2]:
        reason = f"holds {human(spare)} more than the shape {' x '.join(map(str, layout.shape))} in its header needs"
        raise ReadError(layout.path, reason, _REEXPORT, code="damaged")
    return Flag(f"{spare:,} bytes after the voxels ignored", "left_out")
