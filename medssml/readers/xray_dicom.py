"""A radiograph in a DICOM file: what its tags say that it is, and its stored values as gray in [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from medssml.readers.dicom import bit_range, frame_shape, read_header, stored_values, words
from medssml.readers.dicom_file import lost_header
from medssml.readers.dicom_numbers import number, number_if_any, numbers, whole
from medssml.readers.errors import Flag, ReadError
from medssml.readers.grayscale import colour_gray, palette, window
from medssml.readers.image_tags import RADIOGRAPHS, class_modality, derivation, is_raw, modality_of, other_part, view_of
from medssml.readers.stored_bits import is_unsigned, judge_spare
from medssml.readers.xray import Radiograph, XrayHeader

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

#: Modalities of images that were captured or converted: they may be radiographs, and do not say so.
_CONVERTED = ("OT", "SC", "XC", "GM")
#: Gray up to which padding is black already, and by how much a pixel may be higher than wide: augmentation stretches as much.
_BLACK, _SQUARE = 0.02, 0.1


def dicom_header(path: Path) -> XrayHeader:
    """What `dicom_radiograph` will return, without the pixels.

    Raises:
        ReadError: as `dicom_radiograph`, as far as tags tell.
    """
    dataset, _ = read_header(path)
    _check_radiograph(dataset, path)
    _, rows, columns, _ = frame_shape(dataset, path)
    bits, _ = bit_range(dataset, whole(dataset, "BitsAllocated", 0, path), path)
    notes: list[str] = []
    spacing = _spacing(dataset, path, notes)
    return XrayHeader((rows, columns), bits, (*_stated(dataset, path), *notes), spacing, view_of(dataset))


def dicom_radiograph(path: Path) -> Radiograph:
    """The image in a DICOM file: stored bits alone, modality LUT or rescale, VOI LUT or window, MONOCHROME1 inverted.

    Raises:
        ReadError: another modality, a raw image, several frames, or values that contradict their tags.
    """
    header, _ = read_header(path)
    _check_radiograph(header, path)
    dataset, frames, spare, outside = stored_values(path)
    notes: list[str] = []
    bits, _ = bit_range(dataset, frames.dtype.itemsize * 8, path)
    photometric = "".join(words(dataset, "PhotometricInterpretation")[:1]) or "MONOCHROME2"
    if photometric == "PALETTE COLOR":
        array = colour_gray(palette(frames[0], dataset, notes), notes, "palette")
    elif frames.ndim == 4:
        native = not dataset.file_meta.TransferSyntaxUID.is_compressed
        # the codecs turn it into RGB, uncompressed it is as stored
        brightness = native and photometric.startswith("YBR")
        scaled = frames[0].astype(np.float32) / np.float32((1 << bits) - 1)
        array = colour_gray(scaled, notes, photometric, brightness=brightness)
    else:
        _check_sign(frames[0], bits, path)
        array = window(frames[0], dataset, path, notes)
        if photometric == "MONOCHROME1":
            array = np.float32(1) - array
            notes.append("MONOCHROME1 inverted")
        elif words(dataset, "PresentationLUTShape") == ["INVERSE"]:
            notes.append(Flag("PresentationLUTShape INVERSE contradicts MONOCHROME2; not inverted"))
    if outside is not None:
        array = np.where(outside[0], np.float32(0), array)
        notes.append(
            Flag(f"{np.count_nonzero(outside):,} pixels of padding, outside {bits} bits, set to black", "reread")
        )
    array = _without_padding(array, frames[0], dataset, notes)
    notes += [*_stated(dataset, path), *filter(None, [judge_spare([spare], 1, path)])]
    spacing = _spacing(dataset, path, notes)
    return Radiograph(np.ascontiguousarray(array, np.float32), bits, tuple(notes), spacing, view_of(dataset))


def _check_radiograph(dataset: FileDataset, path: Path) -> None:
    modality = modality_of(dataset)
    if modality not in ("", *RADIOGRAPHS, *_CONVERTED):
        raise ReadError(
            path, f"has modality {modality}, not a radiograph", "name the CR, DX or RG file", code="content"
        )
    if is_raw(dataset):
        intent = "PresentationIntentType" if "PresentationIntentType" in dataset else "SOPClassUID"
        reason = f"is a raw image ({intent} FOR PROCESSING), not meant to be looked at"
        raise ReadError(path, reason, "name the image FOR PRESENTATION of the same exposure", code="content")
    frames, _, _, samples = frame_shape(dataset, path)
    if frames != 1:
        raise ReadError(path, f"has {frames} frames, a radiograph has 1", "keep one frame", code="mixed")
    subsampled = words(dataset, "PhotometricInterpretation") == ["YBR_FULL_422"]
    if subsampled and not dataset.file_meta.TransferSyntaxUID.is_compressed:
        raise ReadError(path, "is subsampled colour without compression", "export gray values", code="format")
    if samples not in (1, 3):
        raise ReadError(path, f"has {samples} samples per pixel, expected 1 or 3", "export gray values")


def _check_sign(stored: NDArray[np.generic], bits: int, path: Path) -> None:
    if stored.dtype.kind == "i" and is_unsigned(stored, bits):
        reason = f"states PixelRepresentation 1 (signed), and its values run on as unsigned ones of {bits} bits"
        raise ReadError(path, reason, "correct PixelRepresentation to 0", code="damaged")


def _stated(dataset: FileDataset, path: Path) -> list[str]:
    """Notes on what the tags say of the image."""
    modality, part = modality_of(dataset), other_part(dataset)
    found: list[str] = []
    if not modality:
        found.append(Flag("states no Modality: taken as a radiograph", "assumed"))
    elif modality in _CONVERTED:
        found.append(Flag(f"states modality {modality}: taken as a radiograph", "assumed"))
    if class_modality(dataset) not in ("", *RADIOGRAPHS):
        found.append(f"states modality {modality}, and its SOP class is for {class_modality(dataset)}")
    if part:
        found.append(f"states that it shows {part}")
    if what := derivation(dataset):
        found.append(f"derived: {what}")
    if words(dataset, "RescaleType") in (["OD"], ["HU"]):
        found.append(f"states RescaleType {words(dataset, 'RescaleType')[0]}: the values are no gray")
    if words(dataset, "FluoroscopyFlag") == ["YES"]:
        found.append("states that it is a fluoroscopic image")
    # most files do not say, and then nobody knows
    if words(dataset, "BurnedInAnnotation") == ["YES"]:
        found.append("burned-in annotation")
    found += [*_turned(dataset), *_inverted(dataset, path)]
    lost = lost_header(dataset)
    return [*([lost] if lost else []), *(line if isinstance(line, Flag) else Flag(line) for line in found)]


def _turned(dataset: FileDataset) -> list[str]:
    """Whether the tags say that the image is upside down or mirrored: row 0 is the head, column 0 the patient's right."""
    directions = words(dataset, "PatientOrientation")
    if len(directions) != 2 or view_of(dataset) not in ("PA", "AP"):
        return []
    odd = [("mirrored", directions[0].startswith("R")), ("upside down", directions[1].startswith("H"))]
    shown = "\\".join(directions)
    return [f"PatientOrientation {shown} says that it is {what}; left as it is" for what, yes in odd if yes]


def _inverted(dataset: FileDataset, path: Path) -> list[str]:
    """Whether the tags say that dense tissue is dark in what comes out, or that the values are a detector's counts."""
    relation, sign = (
        words(dataset, "PixelIntensityRelationship")[:1],
        number_if_any(dataset, "PixelIntensityRelationshipSign", 0),
    )
    found = []
    if relation == ["LIN"] and not words(dataset, "PresentationIntentType"):
        found.append("PixelIntensityRelationship LIN: the values are those of a detector, not meant to be looked at")
    if sign not in (1, -1) or dataset.get("ModalityLUTSequence") or dataset.get("VOILUTSequence"):
        return found
    # -1: more of the beam, so less tissue, gives lower values
    dense_is_high = (sign == -1) == (number(dataset, "RescaleSlope", 1.0, path) > 0)
    photometric = "".join(words(dataset, "PhotometricInterpretation")[:1])
    if dense_is_high == (photometric == "MONOCHROME1"):
        told = f"PixelIntensityRelationshipSign {sign:g} and {photometric}"
        found.append(f"{told} say that dense tissue is dark; left as it is")
    return found


def _without_padding(
    array: NDArray[np.float32], stored: NDArray[Any], dataset: FileDataset, notes: list[str]
) -> NDArray[np.float32]:
    """The picture with black where the file says that there is padding and no image (PS3.3, C.7.5.1.1.2)."""
    value = number_if_any(dataset, "PixelPaddingValue", np.nan)
    if not np.isfinite(value) or stored.ndim != 2:
        return array
    limit = number_if_any(dataset, "PixelPaddingRangeLimit", value)
    padding = (stored >= min(value, limit)) & (stored <= max(value, limit))
    shown = padding & (array > _BLACK)
    # Where all of the picture has that value, it is no padding.
    if not shown.any() or padding.all():
        return array
    count, most = np.count_nonzero(shown), array[shown].max()
    notes.append(Flag(f"{count:,} pixels of padding (value {value:g}), up to {most:.2f}, set to black", "reread"))
    return np.where(padding, np.float32(0), array)


def _shape_of_pixels(dataset: FileDataset, spacing: NDArray[np.float64] | None) -> str | None:
    """What is to be said of pixels that are not square: the picture is used as it is stored."""
    ratio = words(dataset, "PixelAspectRatio")
    try:
        stated = [float(part) for part in ratio[:2]]
    except ValueError:
        stated = []
    high, wide = spacing if spacing is not None else stated if len(stated) == 2 and min(stated) > 0 else (1.0, 1.0)
    if abs(high / wide - 1) <= _SQUARE:
        return None
    return Flag(
        f"pixels are {high:g} high and {wide:g} wide: the picture is used as it is stored, stretched by {high / wide:.2f}"
    )


def _spacing(dataset: FileDataset, path: Path, notes: list[str]) -> NDArray[np.float64] | None:
    """(2,) mm between rows and columns; a spacing that cannot be read is left out, as the picture does not need it."""
    for tag in ("PixelSpacing", "ImagerPixelSpacing"):
        try:
            found = numbers(dataset, tag, 2, path)
        except ReadError as error:
            notes.append(Flag(f"{error.reason}: spacing left out", "left_out"))
            continue
        if found is not None and found.min() > 0:
            notes += filter(None, [_shape_of_pixels(dataset, found)])
            return found
    notes += filter(None, [_shape_of_pixels(dataset, None)])
    return None
