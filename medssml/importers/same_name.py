"""Several files under one name: a picture, its mask, a smaller copy. Folders say which is which, else what is in them."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np

from medssml.readers.errors import ReadError

#: Folders of what is drawn on images or predicted from them, never of the images themselves.
_ANNOTATIONS = re.compile(
    r"masks?|seg(ment\w*)?s?|labels?(map|maps|tr|ts)?|annot\w*|pred(iction)?s?|predicted|heat ?maps?|saliency|overlays?|gt|"
    r"ground ?truth|boxes|bbox(es)?|contours?|rois?|lesions?|totalsegmentator|ts|cams?"
)
#: Folders of copies that were made of others: wanted where nothing else is there.
_DERIVED = re.compile(
    r"resampled?|resized?|masked|mm|iso(tropic)?|small(er)?|downsampled?|cropp?(ed|s)?|thumb(nail)?s?|preproc\w*|processed|normali[sz]ed|augment\w*|"
    r"derived|derivatives|enhanced|registered|copy|copies|backup|bak|old|tmp|temp|filtered|clean(ed)?|\d{2,4}x\d{2,4}|previews?"
)
_HEAD = 1 << 20
#: Of a volume so many bytes are looked at: more than 100 slices.
_LOOKED_AT = 64 * 1024**2
#: Labels are whole numbers from 0 to 255, of which a map of all organs uses about 120, and a picture with a mask a few.
_LARGEST_LABEL, _MOST_ORGANS, _MOST_GRAYS = 255, 130, 8


def in_annotations(path: str, *, name: bool = False) -> bool:
    """Whether a folder of the path is one of masks or other annotations; with `name`, or the file's own name.

    >>> in_annotations("ts_seg/train/a.nii.gz"), in_annotations("train/a_mask.png"), in_annotations("a_mask.png", name=True)
    (True, False, True)
    """
    return any(_ANNOTATIONS.fullmatch(word) for word in _words(path, name))


def in_derived(path: str, *, name: bool = False) -> bool:
    """The same for copies that were made of others.

    >>> in_derived("images_resized/a.png"), in_derived("images/a.png")
    (True, False)
    """
    return any(_DERIVED.fullmatch(word) for word in _words(path, name))


def _words(path: str, name: bool) -> list[str]:
    folders, _, own = path.rpartition("/")
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", f"{folders}/{own}" if name else folders)
    return re.findall(r"[a-z]+|\d+x\d+", text.lower())


def same_bytes(first: Path, second: Path) -> bool:
    """Whether two files have the same content; read in pieces."""
    if first.stat().st_size != second.stat().st_size:
        return False
    with first.open("rb") as one, second.open("rb") as other:
        while True:
            a, b = one.read(_HEAD), other.read(_HEAD)
            if a != b or not a:
                return a == b


def pixels(file: Path) -> int:
    """Pixels or voxels that a picture or a NIfTI file declares; 0 where it is neither, or damaged."""
    from PIL import Image

    from medssml.readers.nifti import nifti_layout

    try:
        if _is_nifti(file):
            return int(np.prod(nifti_layout(file).shape))
        with Image.open(file) as picture:
            return picture.width * picture.height
    except (ReadError, OSError, ValueError, Image.DecompressionBombError):
        return 0


def looks_like_labels(file: Path) -> bool:
    """Whether a picture or a NIfTI file holds a few whole numbers and no image: a mask, a map of organs, or of probabilities.

    CT in HU or as stored is never taken for one: it has values below 0 or above 255. Nor is it windowed to 8 bits: it uses all.
    """
    try:
        return _volume_of_labels(file) if _is_nifti(file) else _picture_of_labels(file)
    except (ReadError, OSError, ValueError, EOFError, zlib.error):
        return False


def _is_nifti(file: Path) -> bool:
    return file.name.lower().endswith((".nii", ".nii.gz"))


def _volume_of_labels(file: Path) -> bool:
    from medssml.readers.nifti import nifti_layout

    layout = nifti_layout(file)
    opened = gzip.open if file.name.lower().endswith(".gz") else open
    with opened(file, "rb") as stream:
        stream.read(layout.offset)
        data = stream.read(min(layout.nbytes, _LOOKED_AT))
    values = np.frombuffer(data, layout.dtype, len(data) // layout.dtype.itemsize)
    low, high = (float(values.min()), float(values.max())) if values.size else (math.nan, math.nan)
    if not 0 <= low <= high <= _LARGEST_LABEL:
        return False
    if high <= 1:  # a mask, or how probable one is
        return True
    some = values[:: max(1, values.size // 1_000_000)]
    return len(np.unique(some)) <= _MOST_ORGANS and bool((some == np.round(some)).all())


def _picture_of_labels(file: Path) -> bool:
    from PIL import Image

    with Image.open(file) as picture:
        gray = np.asarray(picture)
    gray = gray[..., 0] if gray.ndim == 3 else gray
    gray = gray[:: max(1, gray.shape[0] // 512), :: max(1, gray.shape[1] // 512)]
    _, often = np.unique(gray, return_counts=True)
    # what a compression with loss leaves beside the two values of a mask is rare
    return bool(np.sort(often)[::-1][:_MOST_GRAYS].sum() >= 0.98 * gray.size)
