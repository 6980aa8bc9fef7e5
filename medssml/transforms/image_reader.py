"""A second reader of CT volumes: any MONAI `ImageReader`, for formats that ours does not know (NRRD, MetaImage, Analyze)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import image_reader

from medssml.readers.ct import Volume, require_finite, volume_of
from medssml.readers.errors import ReadError, reading
from medssml.readers.geometry import check_affine, check_spacing, spacing_of
from medssml.transforms.base import Source

#: Readers that a config may name, and the module that each needs.
READERS = {"ITKReader": "itk", "NrrdReader": "nrrd", "NibabelReader": "nibabel", "PydicomReader": "pydicom"}


class MonaiCTReader:
    """A file through a MONAI `ImageReader`, held to the same rules as our own reader: geometry, finite values, HU.

    Args:
        reader: an `ImageReader`, or one of the names in `READERS`.

    Raises:
        ValueError: an unknown name, or its package is not installed.
    """

    def __init__(self, reader: Any) -> None:
        self.name = reader if isinstance(reader, str) else type(reader).__name__
        if isinstance(reader, str):
            if reader not in READERS:
                raise ValueError(f"reader is {reader!r}; fix: one of {', '.join(READERS)}")
            if importlib.util.find_spec(READERS[reader]) is None:
                package = {"nrrd": "pynrrd"}.get(READERS[reader], READERS[reader])
                raise ValueError(f"reader {reader!r} needs package {package!r}; fix: pip install {package}")
            reader = getattr(image_reader, reader)()
        self.reader: image_reader.ImageReader = reader

    def __call__(self, source: Source) -> Volume:
        """The volume in `source`.

        Raises:
            ReadError: unreadable, not three-dimensional, without usable geometry, or not in HU.
        """
        path = source if isinstance(source, Path) else None
        if path is None:
            raise ReadError("text", "is no file", "give the path of a volume", code="format")
        with reading(path, "CT"):
            array, meta = self.reader.get_data(self.reader.read(path))
            voxels = np.asarray(array)
            if voxels.ndim == 4 and 1 in (voxels.shape[0], voxels.shape[-1]):
                voxels = voxels.squeeze(0 if voxels.shape[0] == 1 else -1)
            if voxels.ndim != 3:
                raise ReadError(path, f"has {voxels.ndim} axes, expected 3", "one volume per file", code="format")
            require_finite(voxels, path)
            affine = torch.as_tensor(meta["affine"]).numpy().astype(np.float64)
            check_affine(affine, path)
            check_spacing(spacing_of(affine), path)
            return volume_of(voxels, affine, (f"read by {self.name}",), path)
