"""What the tags of a DICOM image say that it is: its modality, view, part of the body, and what its values mean.

A reader refuses or flags by it, and an importer chooses by it: both ask here.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from medssml.foreign_text import one_line
from medssml.readers.dicom import words
from medssml.readers.errors import Flag

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

RADIOGRAPHS = ("CR", "DX", "RG")
"""Modalities of plain radiographs."""

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MODALITY_OF_CLASS = {
    "1": "CR", "1.1": "DX", "1.1.1": "DX", "1.2": "MG", "1.2.1": "MG", "1.3": "IO", "1.3.1": "IO", "2": "CT", "2.1": "CT",
    "2.2": "CT", "4": "MR", "4.1": "MR", "12.1": "XA", "12.1.1": "XA", "12.2": "RF", "12.2.1": "RF", "13.1.3": "MG",
    "20": "NM", "128": "PT", "6.1": "US", "3.1": "US",
}  # fmt: skip
_RAW_CLASSES = ("1.1.1", "1.2.1", "1.3.1")
#: What a modality may be written with: anything else is damage, and not quoted.
_CODE = re.compile(r"[A-Z0-9_ ]{1,16}")
SECONDARY_CAPTURE = f"{_STORAGE}7"
"""Class of images that were captured or converted: what their values mean, they do not say."""

_VIEWS = (
    ("OBLIQUE", ("RAO", "LAO", "RPO", "LPO", "RLO", "LLO"), "oblique"),
    ("PA", ("PA",), "posteroanterior"),
    ("AP", ("AP",), "anteroposterior"),
    ("LATERAL", ("LATERAL", "LL", "RL", "LLAT", "RLAT", "LAT"), "lateral"),
)
#: Parts of words for the chest in the languages of stated body parts; and words that say nothing.
_CHEST = ("CHEST", "THORA", "LUNG", "RIB", "TORAX", "TORSO", "HEART", "BRUSTK", "POUMON", "PULM", "CXR", "MEDIASTIN")
_ANY_PART = ("BODY", "UNKNOWN", "OTHER", "UNDEFINED", "UNSPECIFIED", "NONE", "GENERAL", "NA", "N/A", "TRUNK")
_SPINE = ("SPINE", "VERTEBRA", "COLUMN")
#: Derived images whose values are no longer those of a slice: DICOM PS3.16, CID 7203.
_DERIVATIONS = {
    "113047": "a mask", "113048": "a maximum of images", "113051": "a minimum of images", "113052": "a map of transit times",
    "113055": "a map of blood flow", "113056": "a map of blood volume", "113061": "a standard deviation of images",
    "113062": "a difference of images", "113069": "a map of times to peak", "113073": "a curved reformat",
    "113074": "a volume rendering", "113075": "a surface rendering", "113076": "a segmentation", "113077": "an edited volume",
    "113078": "a maximum intensity projection", "113079": "a minimum intensity projection",
}  # fmt: skip
#: What scanners write of them in ImageType, alone or as the last word of a value: CT_SOM5 MIP, MAX_IP, MIN IP.
_PROJECTIONS = {
    "MIP": "113078",
    "MINIP": "113079",
    "MAXIP": "113078",
    "VRT": "113074",
    "CPR": "113073",
    "SSD": "113075",
    "VOLUMERENDER": "113074",
    "SURFACERENDER": "113075",
    "CURVEDMPR": "113073",
}
#: RescaleType of other quantities than HU (PS3.3 C.11.1.1.2).
_OTHER_UNITS = ("OD", "MGML", "Z_EFF", "ED", "EDW", "PCT")
#: Values of ImageType for multi-energy CT that are not HU (PS3.3 C.8.15.3.1), and those that are HU of a made-up beam.
_NOT_HU = ("EFF_ATOMIC_NUM", "ELECTRON_DENSITY", "MAT_SPECIFIC", "MAT_FRACTIONAL", "MAT_VALUE_BASED")
_MADE_HU = ("VMI", "MAT_REMOVED", "MAT_MODIFIED")


def modality_of(dataset: FileDataset) -> str:
    """Modality, else what the SOP class says; "" where neither is stated."""
    stated = words(dataset, "Modality")
    if stated:
        return stated[0] if _CODE.fullmatch(stated[0]) else "unreadable"
    return class_modality(dataset)


def class_modality(dataset: FileDataset) -> str:
    """The modality that the SOP class is for; "" of classes that are for several."""
    return _MODALITY_OF_CLASS.get(str(dataset.get("SOPClassUID") or "").removeprefix(_STORAGE), "")


def view_of(dataset: FileDataset) -> str:
    """ "PA", "AP", "LATERAL" or "OBLIQUE" by ViewPosition, else by the meaning of the view code; "" where neither says."""
    position = "".join(words(dataset, "ViewPosition")[:1])
    meaning = _meaning(dataset, "ViewCodeSequence").lower().replace("-", "")
    for view, positions, word in _VIEWS:
        if position in positions or (not position and word in meaning):
            return view
    return ""


def is_raw(dataset: FileDataset) -> bool:
    """Whether the image is what a detector counted, meant for processing and not to be looked at: by its intent or class."""
    intent = words(dataset, "PresentationIntentType")
    if intent:
        return intent[0] == "FOR PROCESSING"
    return str(dataset.get("SOPClassUID") or "").removeprefix(_STORAGE) in _RAW_CLASSES


def body_part(dataset: FileDataset) -> str:
    """The part of the body that the image states, in capitals: BodyPartExamined, else the code; "" where neither says."""
    stated = " ".join(words(dataset, "BodyPartExamined")) or _meaning(dataset, "AnatomicRegionSequence").upper()
    return one_line(stated, 32)


def other_part(dataset: FileDataset) -> str:
    """The part of the body that the image states, where that is not the chest; "" where it is, or is not stated."""
    part = body_part(dataset)
    spine = any(word in part for word in _SPINE) or part.replace("-", "").strip() == "TSPINE"
    chest = any(word in part for word in _CHEST) and not spine
    vague = not part or part in _ANY_PART or part.replace(" ", "") in ("WHOLEBODY", "UPPERBODY")
    return "" if chest or vague else part


def derivation(dataset: FileDataset) -> str:
    """What was made of the images that this one is derived from, where its values changed their meaning; "" if nothing."""
    codes = [str(item.get("CodeValue") or "") for item in dataset.get("DerivationCodeSequence") or []]
    for part in words(dataset, "ImageType"):
        pieces = re.split(r"[ _]", part)
        codes += [
            _PROJECTIONS[name] for name in ("".join(pieces), "".join(pieces[-2:]), pieces[-1]) if name in _PROJECTIONS
        ]
    return next((_DERIVATIONS[code] for code in codes if code in _DERIVATIONS), "")


def not_in_hounsfield(dataset: FileDataset, rescale_type: list[str]) -> str:
    """Why the values of a CT image are no HU by its tags, "" where nothing speaks against it.

    Args:
        dataset: the image.
        rescale_type: RescaleType of the image or, in a multi-frame file, of the frame; [] where it is not stated.
    """
    if rescale_type and rescale_type[0] in _OTHER_UNITS:
        return f"RescaleType {rescale_type[0]}"
    kind = [part for part in words(dataset, "ImageType") if part in _NOT_HU]
    return f"ImageType {kind[0]}" if kind else ""


def odd_hounsfield(dataset: FileDataset, rescale_type: list[str]) -> list[Flag]:
    """What the tags say of the values of a CT image that are HU all the same, though not of the usual kind."""
    found = []
    if rescale_type and rescale_type[0] != "HU" and not rescale_type[0].startswith("HOUNSFIELD"):
        meaning = {"HU_MOD": "HU that were modified", "US": "no unit"}.get(rescale_type[0], "no term of the standard")
        found.append(f"RescaleType {rescale_type[0][:24]} ({meaning})")
    made = [part for part in words(dataset, "ImageType") if part in _MADE_HU]
    if made:
        found.append(f"ImageType {made[0]} (HU that were computed from several energies)")
    elif words(dataset, "MultienergyCTAcquisition")[:1] == ["YES"]:
        found.append("MultienergyCTAcquisition YES")
    if what := derivation(dataset):
        found.append(f"derived: {what}")
    if words(dataset, "FluoroscopyFlag")[:1] == ["YES"]:
        found.append("FluoroscopyFlag YES")
    return [Flag(text) for text in found]


def _meaning(dataset: Any, tag: str) -> str:
    codes = dataset.get(tag)
    return str(codes[0].get("CodeMeaning") or "") if codes else ""
