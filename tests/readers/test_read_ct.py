"""CT: every way of writing one asymmetric phantom reads as the same RAS+ volume; every fault is refused with its figure."""

import gzip
import struct
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from medssml.readers import ReadError, ct_header, read_ct
from medssml.readers.errors import Flag

SPACING = np.array([0.8, 1.1, 2.5])
SHAPE = (12, 10, 9)
ORIGIN = np.array([-30.0, 12.0, 100.0])


def phantom() -> np.ndarray:
    """(12, 10, 9) int16 HU in RAS+, no two octants alike."""
    rng = np.random.default_rng(0)
    volume = rng.integers(-1000, -700, SHAPE).astype(np.int16)
    volume[7:, :4, :3] = 40
    volume[:3, 6:, 5:] = 900
    return volume


def ras_affine() -> np.ndarray:
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = ORIGIN
    return affine


def nifti(path: Path, codes: str = "RAS", array: np.ndarray | None = None, **header) -> Path:
    """The phantom written in the orientation `codes` by nibabel, which is the oracle."""
    image = nib.Nifti1Image(phantom() if array is None else array, ras_affine())
    wanted = nib.orientations.axcodes2ornt(codes)
    image = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(image.affine), wanted))
    for key, value in header.items():
        image.header[key] = value
    nib.save(image, path)
    return path


def slice_dataset(index: int, **tags) -> FileDataset:
    """Axial slice `index` of the phantom as a scanner writes it: LPS, rows to the back, unsigned with an offset."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
    dataset = FileDataset("slice", {}, file_meta=meta, preamble=b"\0" * 128)
    lps = phantom()[::-1, ::-1, :]  # x to the left, y to the back
    first = np.array([-(ORIGIN[0] + 11 * SPACING[0]), -(ORIGIN[1] + 9 * SPACING[1]), ORIGIN[2]])
    values = (lps[:, :, index].T + 1024).astype(np.uint16)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, f"1.2.3.{index + 1}"
    dataset.SeriesInstanceUID, dataset.Modality, dataset.PatientID = "1.2.9", "CT", "secret-007"
    dataset.PatientName = "Secret^Name"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows, dataset.Columns = values.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.PixelSpacing = [SPACING[1], SPACING[0]]
    dataset.SliceThickness = SPACING[2]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [first[0], first[1], first[2] + index * SPACING[2]]
    dataset.PixelData = values.tobytes()
    for key, value in tags.items():
        setattr(dataset, key, value)
    return dataset


def series(folder: Path, names=lambda index: f"{index:03d}.dcm", change=lambda index: {}, skip=()) -> Path:
    folder.mkdir()
    for index in range(SHAPE[2]):
        if index not in skip:
            slice_dataset(index, **change(index)).save_as(folder / names(index))
    return folder


def assert_is_phantom(path: Path) -> None:
    volume = read_ct(path)
    assert volume.array.dtype == np.int16
    np.testing.assert_array_equal(volume.array, phantom())
    np.testing.assert_allclose(volume.spacing, SPACING, atol=1e-5)
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-3)
    header = ct_header(path)
    assert header.shape == SHAPE
    np.testing.assert_allclose(header.affine, volume.affine)
    assert header.notes == volume.notes


@pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "PIR", "SAL", "IPL"])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_every_orientation_reads_as_one_volume(tmp_path, codes, suffix):
    assert_is_phantom(nifti(tmp_path / f"a{suffix}", codes))


def test_dicom_series_in_any_order_of_names_equals_the_nifti(tmp_path):
    shuffled = np.random.default_rng(1).permutation(SHAPE[2])
    assert_is_phantom(series(tmp_path / "up"))
    assert_is_phantom(series(tmp_path / "down", lambda i: f"{99 - i}.dcm"))
    assert_is_phantom(series(tmp_path / "shuffled", lambda i: f"{shuffled[i]}.dcm"))


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32, np.float64, ">i2"])
def test_any_stored_type_reads_as_the_same_values(tmp_path, dtype):
    dtype = np.dtype(dtype)
    offset = 1024 if dtype.kind == "u" else 0
    image = nib.Nifti1Image((phantom().astype(np.int32) + offset).astype(dtype), ras_affine())
    image.header.set_data_dtype(dtype)
    path = tmp_path / "a.nii.gz"
    nib.save(image, path)
    if offset:
        _set_header(path, 112, struct.pack("<ff", 1.0, -1024.0))
    array = read_ct(path).array
    assert array.dtype == (np.float32 if dtype.kind == "f" else np.int16)
    np.testing.assert_array_equal(array, phantom())


def test_slope_and_intercept_are_applied_once(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 112, struct.pack("<ff", 0.5, -24.0))
    np.testing.assert_array_equal(read_ct(path).array, phantom() * np.float32(0.5) - np.float32(24))


def test_uint16_with_a_negative_intercept_wraps_exactly(tmp_path):
    stored = (phantom().astype(np.int32) + 33_000).astype(np.uint16)
    image = nib.Nifti1Image(stored, ras_affine())
    path = tmp_path / "a.nii"
    nib.save(image, path)
    _set_header(path, 112, struct.pack("<ff", 1.0, -33_000.0))
    np.testing.assert_array_equal(read_ct(path).array, phantom())


def test_lengths_in_metres_are_converted(tmp_path):
    affine = ras_affine()
    affine[:3] /= 1000
    image = nib.Nifti1Image(phantom(), affine)
    image.header.set_xyzt_units("meter")
    nib.save(image, tmp_path / "a.nii")
    volume = read_ct(tmp_path / "a.nii")
    np.testing.assert_allclose(volume.spacing, SPACING, rtol=1e-5)
    assert "converted to mm" in volume.notes[0]


def test_a_gzip_of_several_members_is_whole(tmp_path):
    plain = nifti(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain[:1000]) + gzip.compress(plain[1000:]) + b"\0" * 64)
    assert_is_phantom(path)


def test_signed_pixels_and_overlay_bits(tmp_path):
    def signed(index):
        values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).astype(np.int16) - 1024
        # 12 stored bits; the four above them belong to an overlay, which no tag declares
        raw = (values.view(np.uint16) & 0x0FFF) | 0x5000
        return {"PixelData": raw.tobytes(), "PixelRepresentation": 1, "RescaleIntercept": 0}

    volume = read_ct(series(tmp_path / "s", change=signed))
    np.testing.assert_array_equal(volume.array, phantom())
    (note,) = volume.notes
    assert isinstance(note, Flag) and note.startswith(
        "bits above the 12 of the image are in use in 100.0% of the pixels"
    )
    assert "of 9 of 9 files (000.dcm, 001.dcm, 002.dcm and 6 more); they are ignored" in note


def test_multi_frame_ct(tmp_path):
    dataset = slice_dataset(0)
    frames = [slice_dataset(index) for index in range(SHAPE[2])]
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    dataset.NumberOfFrames = len(frames)
    dataset.PixelData = b"".join(frame.PixelData for frame in frames[::-1])
    shared = Dataset()
    shared.PixelMeasuresSequence = Sequence([_only(frames[0], "PixelSpacing", "SliceThickness")])
    shared.PlaneOrientationSequence = Sequence([_only(frames[0], "ImageOrientationPatient")])
    shared.PixelValueTransformationSequence = Sequence([_only(frames[0], "RescaleSlope", "RescaleIntercept")])
    dataset.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for frame in frames[::-1]:
        group = Dataset()
        group.PlanePositionSequence = Sequence([_only(frame, "ImagePositionPatient")])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    for tag in "PixelSpacing ImageOrientationPatient ImagePositionPatient RescaleSlope RescaleIntercept".split():
        delattr(dataset, tag)
    dataset.save_as(tmp_path / "multi.dcm")
    assert_is_phantom(tmp_path / "multi.dcm")


def test_rle_series_reads_and_a_missing_codec_names_the_extra(tmp_path):
    folder = series(tmp_path / "rle")
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress("1.2.840.10008.1.2.5")
        dataset.save_as(file)
    assert_is_phantom(folder)
    lossless = series(tmp_path / "jpeg")
    for index, file in enumerate(sorted(lossless.iterdir())):
        dataset = slice_dataset(index)
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.80"  # JPEG-LS
        dataset.PixelData = encapsulate([b"\xff\xd8\xff\xf7" + b"\0" * 64])
        dataset["PixelData"].is_undefined_length = True
        dataset["PixelData"].VR = "OB"
        dataset.save_as(file)
    with pytest.raises(ReadError, match=r"JPEG-LS.*no codec.*medssml\[dicom\]|cannot be decoded"):
        read_ct(lossless)


def test_localizers_and_other_files_are_left_out_and_counted(tmp_path):
    folder = series(tmp_path / "s")
    slice_dataset(0, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], SeriesInstanceUID="9.9").save_as(folder / "l.dcm")
    slice_dataset(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SeriesInstanceUID="9.8").save_as(folder / "c.dcm")
    (folder / "readme.txt").write_text("hello")
    slice_dataset(3).save_as(folder / "copy.dcm")
    assert_is_phantom(folder)
    notes = " | ".join(read_ct(folder).notes)
    for part in ("localizer", "secondary capture", "not DICOM", "1 copies of slices"):
        assert part in notes


SERIES_FAULTS = {
    "gap": ({"skip": (5,)}, r"gap 5\.0 mm after slice 5, step 2\.5 mm"),
    "twice": (
        {"change": lambda i: {"ImagePositionPatient": [0, 0, 2.5 * (i if i != 4 else 3)]}},
        r"position 7\.5 mm appears twice \(003.dcm, 004.dcm",
    ),
    "varying": ({"change": lambda i: {"ImagePositionPatient": [0, 0, 2.5 * i + 0.6 * (i % 2)]}}, "varies from 1.90"),
    "patients": ({"change": lambda i: {"PatientID": f"p{i // 5}"}}, "slices of 2 patients"),
    "series": ({"change": lambda i: {"SeriesInstanceUID": f"1.2.{i // 5}"}}, r"2 CT series \(5 \+ 4 files\)"),
    "tilt": ({"change": lambda i: {"ImagePositionPatient": [0, 0.7 * i, 2.5 * i]}}, r"gantry tilt of 15\.6 degrees"),
    "spacing": ({"change": lambda i: {"PixelSpacing": [1 + i // 5, 1]}}, "pixel spacing varies from 1 to 2 mm"),
    "turned": (
        {"change": lambda i: {"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]} if i == 8 else {}},
        r"several orientations \(8 and 1\)",
    ),
    "shifted": (
        {"change": lambda i: {"ImagePositionPatient": [40.0 * (i == 4), 0, 2.5 * i]}},
        r"slice 5 lies 40\.0 mm off",
    ),
    "no rescale": ({"change": lambda i: {"RescaleIntercept": 0}}, r"unsigned values with RescaleIntercept 0"),
    "offset": (
        {"change": lambda i: {"RescaleIntercept": 0, "PixelRepresentation": 1, "PixelSpacing": [12, 12]}},
        "HU with an offset",
    ),
    "no position": ({"change": lambda i: {"ImagePositionPatient": None}}, "no ImagePositionPatient"),
    "too large": ({"change": lambda i: {"Rows": 60_000, "Columns": 60_000}}, r"declares 6\.71 GiB, limit 2 GiB"),
    "cut": ({"change": lambda i: {"PixelData": b"\0" * 100} if i == 3 else {}}, "is truncated: .*of 240 pixel bytes"),
    "magnetic": ({"change": lambda i: {"Modality": "MR"}}, "no CT slice"),
}


@pytest.mark.parametrize("fault", SERIES_FAULTS)
def test_faulty_series_are_refused_with_the_figure(tmp_path, fault):
    options, message = SERIES_FAULTS[fault]
    folder = series(tmp_path / "s", **options)
    with pytest.raises(ReadError, match=message) as caught:
        read_ct(folder)
    assert "fix:" in str(caught.value)
    assert "secret" not in str(caught.value).lower()
    if fault != "offset":  # which only the voxels can tell
        with pytest.raises(ReadError, match=message):
            ct_header(folder)


def _affine(first_column):
    affine = ras_affine()
    affine[:3, 0] = first_column
    return affine


NIFTI_FAULTS = {
    "singular": (lambda: nib.Nifti1Image(phantom(), _affine([0, 1.1, 0])), "affine is singular"),
    "sheared": (lambda: nib.Nifti1Image(phantom(), _affine([0.8, 0, 0.2])), r"sheared by 14\.0 degrees"),
    "4d": (lambda: nib.Nifti1Image(np.stack([phantom()] * 3, -1), ras_affine()), "4 dimensions: 3 volumes"),
    "2d": (lambda: nib.Nifti1Image(phantom()[:, :, 0], ras_affine()), "2 dimensions"),
    "nan": (
        lambda: nib.Nifti1Image(np.where(phantom() > 800, np.nan, phantom()).astype(np.float32), ras_affine()),
        r"48 of 1,080 voxels are NaN",
    ),
    "colour": (lambda: nib.Nifti1Image(np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")]), ras_affine()), "R"),
    "window": (
        lambda: nib.Nifti1Image(np.clip((phantom() + 200) // 4, 0, 255).astype(np.int16), ras_affine()),
        "values 0 to 255, none below 0: an 8-bit window",
    ),
    "constant": (lambda: nib.Nifti1Image(np.full(SHAPE, -1000, np.int16), ras_affine()), "constant, or rescaled"),
    "unit range": (
        lambda: nib.Nifti1Image((phantom() / 4000).astype(np.float32), ras_affine()),
        "are not HU",
    ),
}


@pytest.mark.parametrize("fault", NIFTI_FAULTS)
def test_faulty_nifti_are_refused_with_the_figure(tmp_path, fault):
    make, message = NIFTI_FAULTS[fault]
    path = tmp_path / "a.nii.gz"
    image = make()
    nib.save(image, path)
    with pytest.raises(ReadError, match=message):
        read_ct(path)


def test_soft_tissue_without_air_is_no_false_alarm(tmp_path):
    values = np.random.default_rng(0).integers(1, 120, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(values, ras_affine()), tmp_path / "a.nii")
    np.testing.assert_array_equal(read_ct(tmp_path / "a.nii").array, values)


def test_contradictory_spacing_is_refused(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 80, struct.pack("<fff", 0.8, 1.1, 5.0))
    with pytest.raises(ReadError, match=r"the affine says 0\.8 x 1\.1 x 2\.5 mm, pixdim 0\.8 x 1\.1 x 5 mm"):
        ct_header(path)


def test_a_zero_affine_is_refused(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 280, b"\0" * 48)
    with pytest.raises(ReadError, match=r"affine is singular \(determinant 0, steps 0 x 0 x 0 mm"):
        ct_header(path)


def test_truncated_files_are_found_from_the_header_pass(tmp_path):
    whole = nifti(tmp_path / "a.nii.gz").read_bytes()
    for keep in (1, 10, 200, len(whole) // 2, len(whole) - 9, len(whole) - 1):
        path = tmp_path / f"{keep}.nii.gz"
        path.write_bytes(whole[:keep])
        with pytest.raises(ReadError):
            ct_header(path)
    plain = gzip.decompress(whole)
    (tmp_path / "b.nii").write_bytes(plain[:-1])
    with pytest.raises(ReadError, match=r"truncated: 2,511 of 2,512 bytes"):
        ct_header(tmp_path / "b.nii")


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path):
    plain = bytearray(gzip.decompress(nifti(tmp_path / "a.nii.gz").read_bytes()))
    packed = gzip.compress(bytes(plain))
    plain[1500] ^= 1
    raw = zlib.compressobj(9, zlib.DEFLATED, -15)
    body = raw.compress(bytes(plain)) + raw.flush()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(packed[:10] + body + packed[-8:])  # the checksum of the unchanged voxels
    ct_header(path)
    with pytest.raises(ReadError, match="incorrect data check"):
        read_ct(path)


def test_a_declared_size_over_the_limit_allocates_nothing(tmp_path):
    path = nifti(tmp_path / "a.nii.gz")
    _set_header(path, 40, struct.pack("<hhhh", 3, 32_000, 32_000, 32_000))
    with pytest.raises(ReadError, match=r"declares 59\.6 TiB, limit 2 GiB"):
        ct_header(path)


def test_a_gzip_that_holds_more_than_it_declares_is_stopped(tmp_path):
    plain = nifti(tmp_path / "a.nii").read_bytes()
    path = tmp_path / "b.nii.gz"
    path.write_bytes(gzip.compress(plain + b"\0" * (64 << 20)))
    with pytest.raises(ReadError, match="holds more than the 2.45 KiB"):
        ct_header(path)


def test_missing_empty_folder_and_foreign_files(tmp_path):
    (tmp_path / "empty.nii.gz").touch()
    (tmp_path / "text.nii.gz").write_text("hello, this is no volume at all")
    (tmp_path / "nothing").mkdir()
    nib.save(nib.Nifti1Pair(phantom(), ras_affine()), tmp_path / "pair.img")
    cases = {
        "absent.nii": "no such file",
        "empty.nii.gz": "is empty",
        "text.nii.gz": "not NIfTI",
        "nothing": "no CT slice",
        "pair.hdr": "pair",
    }
    for name, message in cases.items():
        for read in (read_ct, ct_header):
            with pytest.raises(ReadError, match=message) as caught:
                read(tmp_path / name)
            assert str(tmp_path / name) in str(caught.value)
            assert "\n" not in str(caught.value)


def test_burned_in_annotation_is_flagged(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"BurnedInAnnotation": "YES" if i < 2 else "NO"})
    assert f"burned-in annotation in 2 of {SHAPE[2]} files" in ct_header(folder).notes


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    folder = series(tmp_path / "s")
    slice_dataset(0).save_as(tmp_path / "outside.dcm")
    (folder / "link.dcm").symlink_to(tmp_path / "outside.dcm")
    with pytest.raises(ReadError, match="link that leaves"):
        read_ct(folder)


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_raise_read_errors_alone(tmp_path, seed):
    rng = np.random.default_rng(seed)
    plain = nifti(tmp_path / "a.nii").read_bytes()
    slice_dataset(0).save_as(tmp_path / "a.dcm")
    dicom = (tmp_path / "a.dcm").read_bytes()
    refused = 0
    for number in range(60):
        data = bytearray(plain if number % 2 else dicom)
        limit = 352 if number % 2 else len(data)
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(0, limit)] = rng.integers(0, 256)
        path = tmp_path / ("m.nii" if number % 2 else "m.dcm")
        path.write_bytes(data)
        try:
            read_ct(path)
        except ReadError as error:
            refused += 1
            assert error.fix, error
    assert 0 < refused < 60  # the mutations are neither idle nor all fatal


def test_instance_uids_are_not_needed(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"SOPInstanceUID": generate_uid()})
    assert_is_phantom(folder)


def _only(dataset: Dataset, *names: str) -> Dataset:
    part = Dataset()
    for name in names:
        setattr(part, name, getattr(dataset, name))
    return part


def _set_header(path: Path, offset: int, value: bytes) -> None:
    """Overwrites bytes of a NIfTI header, plain or gzipped."""
    packed = path.suffix == ".gz"
    data = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    data[offset : offset + len(value)] = value
    path.write_bytes(gzip.compress(bytes(data)) if packed else bytes(data))
