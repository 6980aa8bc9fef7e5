"""One DICOM file: an allow list of technical tags, and its stored values.

Nothing else of the file is decoded: no name, date, institution or free text about a patient is ever read into memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom_file import CONVERT, is_dicom, read_dataset
from medssml.readers.dicom_numbers import number, number_if_any, whole, words
from medssml.readers.errors import ReadError, declared_bytes, human, reading, require_file
from medssml.readers.stored_bits import Spare, outside, own_bits, spare_bits

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

__all__ = [
    "TECHNICAL_TAGS",
    "Pixels",
    "bit_range",
    "frame_shape",
    "is_dicom",
    "pixel_digest",
    "read_header",
    "stored_values",
    "words",
]

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
    "RescaleType",
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
    "PixelPaddingRangeLimit",
    "PixelAspectRatio",
    "PatientOrientation",
    "ViewCodeSequence",
    "PresentationIntentType",
    "PixelIntensityRelationship",
    "PixelIntensityRelationshipSign",
    "BodyPartExamined",
    "AnatomicRegionSequence",
    "FluoroscopyFlag",
    "MultienergyCTAcquisition",
    "DerivationCodeSequence",
    "ConvolutionKernel",
    "KVP",
)
"""All that is read of a DICOM file. For a CT series, `PatientID` joins as a digest that is compared and dropped."""

_OVERLAY_BITS = tuple(0x60000102 + 0x20000 * plane for plane in range(16))


class Pixels(NamedTuple):
    """Stored values of a file, before any rescale: (F, H, W) or (F, H, W, 3), and what lay in the bits above them.

    outside: where a padding value stood that the bits of the image cannot hold; None where there was none.
    """

    dataset: FileDataset
    values: NDArray[Any]
    spare: Spare | None
    outside: NDArray[np.bool_] | None = None


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
    path = require_file(path)
    with reading(path, "DICOM file"):
        tags: list[Any] = [*TECHNICAL_TAGS, "PatientID"] if patient else list(TECHNICAL_TAGS)
        dataset, remaining = read_dataset(path, tags)
        digest = _drop_patient(dataset)
        if skip is None or not skip(dataset):
            _check_image(dataset, path, remaining)
        return dataset, digest


def stored_values(path: str | Path) -> Pixels:
    """A file's tags and its stored values, with foreign bits masked.

    Raises:
        ReadError: truncated, or compressed in a syntax for which no codec is installed.
    """
    path = Path(path)
    with reading(path, "DICOM file"):
        dataset, _ = read_dataset(path, [*TECHNICAL_TAGS, *_OVERLAY_BITS, "PixelData"], pixels=True)
        if dataset.file_meta.TransferSyntaxUID.is_compressed:
            values = _decompress(dataset, path)
        else:
            values = _native(dataset, path)
        allocated = values.dtype.itemsize * 8
        stored, high = bit_range(dataset, allocated, path)
        overlay = any(tag in dataset for tag in _OVERLAY_BITS)
        padding = number_if_any(dataset, "PixelPaddingValue", np.nan)
        padded = outside(values, stored, high, int(padding) if np.isfinite(padding) else None)
        spare = spare_bits(values, stored, high, path, overlay=overlay, padded=padded)
        return Pixels(dataset, own_bits(values, stored, high), spare, padded)


def pixel_digest(path: str | Path) -> str:
    """What two files share that hold the same image, whatever their UIDs: size, stored values and their rescale.

    Raises:
        ReadError: as `stored_values`.
    """
    dataset, values, *_ = stored_values(path)
    scale = [
        number(dataset, tag, default, Path(path)) for tag, default in (("RescaleSlope", 1), ("RescaleIntercept", 0))
    ]
    meaning = (values.shape, scale, words(dataset, "PhotometricInterpretation"))
    digest = hashlib.blake2b(repr(meaning).encode(), digest_size=16)
    digest.update(values.astype(np.int64).tobytes())
    return digest.hexdigest()


def frame_shape(dataset: FileDataset, path: Path) -> tuple[int, int, int, int]:
    """(F, H, W, S) frames, rows, columns, samples per pixel."""
    tags = ("NumberOfFrames", "Rows", "Columns", "SamplesPerPixel")
    frames, rows, columns, samples = (whole(dataset, tag, 0, path) for tag in tags)
    return frames or 1, rows, columns, samples or 1


def bit_range(dataset: FileDataset, allocated: int, path: Path) -> tuple[int, int]:
    """Bits of the image in `allocated` ones, and the highest of them; 0 counts as not stated."""
    stored = whole(dataset, "BitsStored", 0, path) or allocated
    return stored, whole(dataset, "HighBit", 0, path) or stored - 1


def _drop_patient(dataset: FileDataset) -> str:
    """A digest of PatientID, which is not decoded: the library quotes what is odd in a value."""
    if "PatientID" not in dataset:
        return ""
    value = dataset.get_item("PatientID").value
    raw = value if isinstance(value, bytes) else str(value or "").encode()
    del dataset.PatientID
    return hashlib.blake2b(raw.strip(b" \0"), digest_size=8).hexdigest()


def _check_image(dataset: FileDataset, path: Path, remaining: int) -> None:
    """The pixels that a header declares are within the limit, and, where uncompressed, in the file."""
    if "Rows" not in dataset or "Columns" not in dataset:
        reason = "holds no image (no Rows and Columns), or is truncated within its header"
        raise ReadError(path, reason, "copy the file again, or leave it out of the folder", code="truncated")
    allocated = whole(dataset, "BitsAllocated", 0, path)
    if allocated not in (8, 16, 32):
        raise ReadError(path, f"has {allocated} bits allocated, expected 8, 16 or 32", "export gray values")
    stored, high = bit_range(dataset, allocated, path)
    if not 1 <= stored <= allocated or not stored - 1 <= high < allocated:
        reason = f"contradicts itself: {stored} bits stored up to bit {high}, {allocated} allocated"
        raise ReadError(path, reason, "export the image again", code="damaged")
    expected = declared_bytes(path, frame_shape(dataset, path), allocated // 8)
    if not dataset.file_meta.TransferSyntaxUID.is_compressed and remaining < expected:
        found = max(0, remaining)
        raise ReadError(
            path, f"is truncated: {found:,} of {expected:,} pixel bytes", "copy the file again", code="truncated"
        )
    if remaining <= 0:
        raise ReadError(path, "ends before its pixels", "copy the file again", code="truncated")


def _native(dataset: FileDataset, path: Path) -> NDArray[Any]:
    frames, rows, columns, samples = frame_shape(dataset, path)
    allocated = whole(dataset, "BitsAllocated", 0, path)
    expected = declared_bytes(path, (frames, rows, columns, samples), allocated // 8)
    data = dataset.get("PixelData") or b""
    if len(data) < expected:
        raise ReadError(
            path, f"is truncated: {len(data):,} of {expected:,} pixel bytes", "copy the file again", code="truncated"
        )
    little = dataset.file_meta.TransferSyntaxUID.is_little_endian
    if allocated == 8 and not little and dataset["PixelData"].VR == "OW":
        # words of two pixels each: the second pixel of a word comes first
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes() + data[len(data) // 2 * 2 :]
    order = "<" if little else ">"
    kind = "i" if whole(dataset, "PixelRepresentation", 0, path) else "u"
    dtype = np.dtype(f"{order}{kind}{allocated // 8}")
    values = np.frombuffer(data, dtype, count=expected // dtype.itemsize)
    values = values.astype(dtype.newbyteorder("="), copy=False)
    if samples == 1:
        return values.reshape(frames, rows, columns)
    if whole(dataset, "PlanarConfiguration", 0, path) == 1:
        return np.moveaxis(values.reshape(frames, samples, rows, columns), 1, -1)
    return values.reshape(frames, rows, columns, samples)


def _decompress(dataset: FileDataset, path: Path) -> NDArray[Any]:
    from pydicom.pixels import get_decoder

    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        reason = f"is compressed as {syntax.name}, which is not supported"
        raise ReadError(path, reason, CONVERT, code="codec") from error
    if not decoder.is_available:
        reason = f"is compressed as {syntax.name}, no codec installed"
        raise ReadError(path, reason, "pip install 'medssml[dicom]' (the extra with its codecs)", code="codec")
    frames, rows, columns, samples = frame_shape(dataset, path)
    gray = samples == 1  # its upper bits are looked at before they are cut
    values, _ = decoder.as_array(dataset, raw=gray, correct_unused_bits=not gray)  # type: ignore[arg-type]
    shape = (frames, rows, columns) if samples == 1 else (frames, rows, columns, samples)
    if values.size != np.prod(shape):
        declared = human(int(np.prod(shape)))
        raise ReadError(path, f"decodes to {values.size:,} values, its header declares {declared}", "export it again")
    return np.asarray(values).reshape(shape)
