"""One DICOM file: an allow list of technical tags, and its stored values.

Nothing else of the file is decoded: no name, date, institution or free text about a patient is ever read into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.errors import Flag, ReadError, declared_bytes, human, require_file

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

TECHNICAL_TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "NumberOfFrames",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "RescaleSlope",
    "RescaleIntercept",
    "ModalityLUTSequence",
    "VOILUTSequence",
    "VOILUTFunction",
    "WindowCenter",
    "WindowWidth",
    "PresentationLUTShape",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "PixelSpacing",
    "ImagerPixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
    "ViewPosition",
    "BurnedInAnnotation",
    "LossyImageCompression",
    "PixelPaddingValue",
    "PatientOrientation",
    "ViewCodeSequence",
)
"""All that is read of a DICOM file. For a CT series, `PatientID` joins as a digest that is compared and dropped."""

_OVERLAY_BITS = tuple(0x60000102 + 0x20000 * plane for plane in range(16))
_DEFLATED = "1.2.840.10008.1.2.1.99"
_CONVERT = "convert it to an uncompressed syntax (dcmconv, gdcmconv --raw)"


def is_dicom(path: Path) -> bool:
    """Whether `path` carries the DICM mark at byte 128."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def read_header(
    path: str | Path, *, patient: bool = False, skip: Callable[[FileDataset], str] | None = None
) -> tuple[FileDataset, str]:
    """The technical tags of a file, without its pixels, checked for its declared size and for truncation.

    Args:
        path: the file.
        patient: return a digest of the patient's id as well.
        skip: says why a file is not wanted; such a file is not checked, so that a note or a report hurts nobody.

    Returns:
        the dataset, and a digest of the patient's id where `patient` is true ("" otherwise).

    Raises:
        ReadError: no DICOM, no image, truncated, or a declared size over the limit.
    """
    import pydicom

    path = require_file(path)
    if not is_dicom(path):
        raise ReadError(path, "is not DICOM (no DICM mark at byte 128)", "name a DICOM file", code="format")
    with path.open("rb") as file:
        syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
        if syntax is None:
            raise ReadError(path, "names no transfer syntax", "export the file again")
        if not syntax.is_transfer_syntax:
            raise ReadError(
                path, f"has transfer syntax {syntax}, which is none, so not supported", _CONVERT, code="codec"
            )
        if syntax == _DEFLATED:
            raise ReadError(path, "is deflated as a whole, which hides its true size", _CONVERT, code="codec")
        tags: list[Any] = [*TECHNICAL_TAGS, "PatientID"] if patient else list(TECHNICAL_TAGS)
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=tags)
        start = file.tell()
    digest = _drop_patient(dataset)
    if skip is None or not skip(dataset):
        _check_image(dataset, path, path.stat().st_size - start)
    return dataset, digest


def stored_values(path: str | Path) -> tuple[FileDataset, NDArray[Any]]:
    """A file's tags and its stored values (F, H, W) or (F, H, W, 3), before any rescale; foreign bits masked.

    Raises:
        ReadError: truncated, or compressed in a syntax for which no codec is installed.
    """
    import pydicom

    path = Path(path)
    dataset = pydicom.dcmread(path, specific_tags=[*TECHNICAL_TAGS, "PixelData"])
    if dataset.file_meta.TransferSyntaxUID.is_compressed:
        values = _decompress(dataset, path)
    else:
        values = _native(dataset, path)
    return dataset, _own_bits(values, dataset)


def foreign_bits(path: str | Path) -> str:
    """A note where bits above those of the image are in use: an overlay, or a depth that is stated too low. "" if not."""
    import pydicom

    tags: list[Any] = ["BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelData", *_OVERLAY_BITS]
    dataset = pydicom.dcmread(path, specific_tags=tags)
    if dataset.file_meta.TransferSyntaxUID.is_compressed or int(dataset.get("BitsAllocated") or 0) != 16:
        return ""
    high = int(dataset.get("HighBit") or int(dataset.get("BitsStored") or 16) - 1)
    if high >= 15 or int(dataset.get("PixelRepresentation") or 0):
        return ""
    data = dataset.get("PixelData") or b""
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    values = np.frombuffer(data, f"{order}u2", len(data) // 2)
    used = np.count_nonzero(values >> (high + 1)) / max(1, values.size)
    if not used:
        return ""
    if any(tag in dataset for tag in _OVERLAY_BITS):
        return "overlay removed from the upper bits"
    return Flag(
        f"bits above the {high + 1} of the image are in use in {used:.1%} of the pixels; they are ignored", "cut"
    )


def frame_shape(dataset: FileDataset) -> tuple[int, int, int, int]:
    """(F, H, W, S) frames, rows, columns, samples per pixel."""
    frames = int(dataset.get("NumberOfFrames") or 1)
    return frames, int(dataset.Rows), int(dataset.Columns), int(dataset.get("SamplesPerPixel") or 1)


def numbers(dataset: Any, tag: str, count: int, path: Path) -> NDArray[np.float64] | None:
    """(count,) numbers of a tag, or None where it is absent or empty.

    Raises:
        ReadError: the tag holds another number of values, or values that are not finite.
    """
    value = dataset.get(tag)
    if value is None or value == "":
        return None
    found = np.atleast_1d(np.array(value, dtype=np.float64))
    if found.shape != (count,) or not np.isfinite(found).all():
        raise ReadError(path, f"{tag} holds {found.size} values, expected {count} finite ones", "export the file again")
    return found


def number(dataset: Any, tag: str, default: float) -> float:
    """The first finite number of a tag, else `default`."""
    value = dataset.get(tag)
    if value is None or value == "":
        return default
    first = float(np.atleast_1d(np.array(value, dtype=np.float64))[0])
    return first if np.isfinite(first) else default


def _drop_patient(dataset: FileDataset) -> str:
    if "PatientID" not in dataset:
        return ""
    digest = hashlib.blake2b(str(dataset.PatientID).strip().encode(), digest_size=8).hexdigest()
    del dataset.PatientID
    return digest


def _check_image(dataset: FileDataset, path: Path, remaining: int) -> None:
    """The pixels that a header declares are within the limit, and, where uncompressed, in the file."""
    if "Rows" not in dataset or "Columns" not in dataset:
        reason = "holds no image (no Rows and Columns), or is truncated within its header"
        raise ReadError(path, reason, "copy the file again, or leave it out of the folder", code="truncated")
    allocated = int(dataset.get("BitsAllocated") or 0)
    if allocated not in (8, 16, 32):
        raise ReadError(path, f"has {allocated} bits allocated, expected 8, 16 or 32", "export gray values")
    stored = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") or stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        reason = f"contradicts itself: {stored} bits stored up to bit {high}, {allocated} allocated"
        raise ReadError(path, reason, "export the image again", code="damaged")
    expected = declared_bytes(path, frame_shape(dataset), allocated // 8)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and remaining < expected:
        found = max(0, remaining)
        raise ReadError(
            path, f"is truncated: {found:,} of {expected:,} pixel bytes", "copy the file again", code="truncated"
        )
    if remaining <= 0:
        raise ReadError(path, "ends before its pixels", "copy the file again", code="truncated")


def _native(dataset: FileDataset, path: Path) -> NDArray[Any]:
    frames, rows, columns, samples = frame_shape(dataset)
    allocated = int(dataset.BitsAllocated)
    expected = declared_bytes(path, (frames, rows, columns, samples), allocated // 8)
    data = dataset.get("PixelData") or b""
    if len(data) < expected:
        raise ReadError(
            path, f"is truncated: {len(data):,} of {expected:,} pixel bytes", "copy the file again", code="truncated"
        )
    order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
    kind = "i" if int(dataset.get("PixelRepresentation") or 0) else "u"
    dtype = np.dtype(f"{order}{kind}{allocated // 8}")
    values = np.frombuffer(data, dtype, count=expected // dtype.itemsize)
    values = values.astype(dtype.newbyteorder("="), copy=False)
    if samples == 1:
        return values.reshape(frames, rows, columns)
    if int(dataset.get("PlanarConfiguration") or 0) == 1:
        return np.moveaxis(values.reshape(frames, samples, rows, columns), 1, -1)
    return values.reshape(frames, rows, columns, samples)


def _decompress(dataset: FileDataset, path: Path) -> NDArray[Any]:
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        reason = f"is compressed as {syntax.name}, which is not supported"
        raise ReadError(path, reason, _CONVERT, code="codec") from error
    if not decoder.is_available:
        reason = f"is compressed as {syntax.name}, no codec installed"
        raise ReadError(path, reason, "pip install 'medssml[dicom]' (the extra with its codecs)", code="codec")
    frames, rows, columns, samples = frame_shape(dataset)
    values, _ = decoder.as_array(dataset, raw=samples == 1)
    shape = (frames, rows, columns) if samples == 1 else (frames, rows, columns, samples)
    if values.size != np.prod(shape):
        declared = human(int(np.prod(shape)))
        raise ReadError(path, f"decodes to {values.size:,} values, its header declares {declared}", "export it again")
    return np.asarray(values).reshape(shape)


def _own_bits(values: NDArray[Any], dataset: FileDataset) -> NDArray[Any]:
    """The `BitsStored` bits up to `HighBit`, sign extended where signed: overlays hide in the bits above them."""
    allocated = values.dtype.itemsize * 8
    stored = int(dataset.get("BitsStored") or allocated)
    high = int(dataset.get("HighBit") or stored - 1)
    if stored == allocated:
        return values
    if values.dtype.kind == "i":
        return (values << (allocated - 1 - high)) >> (allocated - stored)
    mask = values.dtype.type((1 << stored) - 1)
    return (values >> (high + 1 - stored)) & mask
