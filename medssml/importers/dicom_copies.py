"""Which DICOM files are there twice: an anonymiser may have given one SOPInstanceUID to all, so that it proves nothing alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medssml.importers.tree import Tree
from medssml.readers.dicom import pixel_digest, words
from medssml.readers.errors import ReadError

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

#: What a copy shares with its original, beside the UID, the patient and the pixels.
_SHARED = ("SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient", "NumberOfFrames", "ViewPosition")

_Key = tuple[str, ...]


class Copies:
    """The images of a tree by SOPInstanceUID, patient, series and position. Pixels are decoded only of what shares all that."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._first: dict[_Key, str] = {}
        self._pixels: dict[_Key, dict[str, str]] = {}
        self._uids: dict[str, _Key] = {}

    def original(self, path: str, dataset: FileDataset, patient: str) -> str:
        """The earlier file that `path` is a copy of; "" where it is an image of its own."""
        uid = str(dataset.get("SOPInstanceUID") or "")
        if not uid:
            return ""
        key = (uid, patient, *("\\".join(words(dataset, tag)) for tag in _SHARED))
        if self._uids.setdefault(uid, key) != key:
            self._note()
        first = self._first.setdefault(key, path)
        if first == path:
            return ""
        known = self._pixels.setdefault(key, {self._digest(first): first})
        original = known.setdefault(self._digest(path), path)
        if original == path:
            self._note()
            return ""
        return original

    def _note(self) -> None:
        self._tree.account.note(
            "images that differ have one SOPInstanceUID, as an anonymiser or a converter makes them: files are copies only "
            "where patient, series, position and pixels are the same, too"
        )

    def _digest(self, path: str) -> str:
        """Of the pixels; of a file that cannot be decoded its name, which is like no other."""
        try:
            return pixel_digest(self._tree.root / path)
        except ReadError:
            return path
