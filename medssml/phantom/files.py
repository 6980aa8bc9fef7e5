"""The phantom's files: NIfTI or DICOM volumes, PNG or DICOM films, EDF recordings. Same input, same bytes."""

from __future__ import annotations

import datetime
import gzip
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from medssml.phantom.eeg import CHANNELS, Array
from medssml.phantom.shapes import Field, Grid

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

DATE = datetime.date(2020, 1, 1)  # of every study: nothing can be read from dates


def write_nifti(path: Path, hu: Field, grid: Grid) -> None:
    """A volume (X, Y, Z) in HU as int16 .nii.gz in RAS, with its geometry in both forms."""
    import nibabel as nib

    image = nib.Nifti1Image(_int16(hu), grid.affine)
    image.set_qform(grid.affine, code=1)
    image.set_sform(grid.affine, code=1)
    image.header.set_xyzt_units("mm")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file, gzip.GzipFile("", "wb", 1, file, mtime=0) as packed:
        packed.write(image.to_bytes())


def write_series(folder: Path, hu: Field, grid: Grid, subject: str, study: str) -> None:
    """A volume (X, Y, Z) in HU as a folder of axial DICOM slices, stored unsigned with an intercept of -1024 HU."""
    folder.mkdir(parents=True, exist_ok=True)
    stored = (np.clip(_int16(hu), -1024, 3071) + 1024).astype(np.uint16)
    x, y, z = (axis.ravel() for axis in grid.axes)
    for number in range(stored.shape[2]):
        dataset = _dataset("CT", "1.2.840.10008.5.1.4.1.1.2", subject, study, number)
        dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        dataset.ImagePositionPatient = [float(-x[-1]), float(-y[-1]), float(z[number])]
        dataset.PixelSpacing = [grid.spacing[1], grid.spacing[0]]
        dataset.SliceThickness = grid.spacing[2]
        dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = -1024, 1, "HU"
        dataset.FrameOfReferenceUID = _uid(study, "frame")
        _set_pixels(dataset, stored[::-1, ::-1, number].T, bits=12)
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def write_png(path: Path, film: Field, bits: int) -> None:
    """A film (H, W) in [0, 1] as PNG of 8 or 16 bits."""
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if bits == 8 else np.uint16
    Image.fromarray(np.round(film * np.iinfo(kind).max).astype(kind)).save(path, format="PNG", compress_level=1)


def write_dicom_film(path: Path, film: Field, pixel: float, subject: str, study: str, inverted: bool) -> None:
    """A film (H, W) in [0, 1] as DICOM of 12 bits; `inverted` stores it as MONOCHROME1. `pixel` is in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset = _dataset("DX", "1.2.840.10008.5.1.4.1.1.1.1", subject, study, 0)
    dataset.ViewPosition = "AP"
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = [pixel, pixel]
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    stored = np.round((1 - film if inverted else film) * 4095).astype(np.uint16)
    _set_pixels(dataset, stored, bits=12, photometric="MONOCHROME1" if inverted else "MONOCHROME2")
    dataset.save_as(path, enforce_file_format=True)


def write_edf(path: Path, signal: Array, sfreq: float, subject: str, female: bool) -> None:
    """A recording (19, T) in uV at `sfreq` Hz as EDF, steps of 0.1 uV."""
    import edfio

    path.parent.mkdir(parents=True, exist_ok=True)
    limit = 3276.7
    signals = [
        edfio.EdfSignal(
            np.clip(channel, -limit, limit),
            sfreq,
            label=f"EEG {name}-Ref",
            physical_dimension="uV",
            physical_range=(-limit, limit),
            digital_range=(-32767, 32767),
        )
        for name, channel in zip(CHANNELS, signal, strict=True)
    ]
    patient = edfio.Patient(code=subject, sex="F" if female else "M")
    recording = edfio.Recording(startdate=DATE)
    edf = edfio.Edf(signals, patient=patient, recording=recording, data_record_duration=1.0)
    edf.write(path)


def _int16(hu: Field) -> NDArray[np.int16]:
    return np.round(np.clip(hu, -1024, 3071)).astype(np.int16)


def _uid(*parts: str) -> str:
    """A DICOM identifier that follows from its parts alone."""
    from pydicom.uid import generate_uid

    return str(generate_uid(entropy_srcs=["medssml phantom", *parts]))


def _dataset(modality: str, sop_class: str, subject: str, study: str, number: int) -> FileDataset:
    """The header that all images have."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian

    instance = _uid(study, modality, str(number))
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = sop_class  # type: ignore[assignment]
    meta.MediaStorageSOPInstanceUID = instance  # type: ignore[assignment]
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = _uid(study), _uid(study, modality)
    dataset.Modality, dataset.InstanceNumber, dataset.SeriesNumber = modality, number + 1, 1
    dataset.PatientID, dataset.PatientName, dataset.StudyID = subject, "Phantom", study
    dataset.StudyDate = DATE.strftime("%Y%m%d")
    return dataset


def _set_pixels(dataset: FileDataset, stored: NDArray[np.uint16], bits: int, photometric: str = "MONOCHROME2") -> None:
    """Pixels (H, W) of `bits` stored bits in 16."""
    dataset.Rows, dataset.Columns = stored.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, photometric
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, bits, bits - 1, 0
    dataset.PixelData = np.ascontiguousarray(stored).astype("<u2").tobytes()
    dataset["PixelData"].VR = "OW"
