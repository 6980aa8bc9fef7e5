"""CT: what a scanner or an export gets wrong is told with its figure, or put right and equal to the phantom."""

import struct

import nibabel as nib
import numpy as np
import pytest
from pydicom.sequence import Sequence

from medssml.readers import ReadError, ct_header, read_ct
from medssml.readers.errors import Flag
from medssml.readers.nifti import Given
from tests.readers.test_read_ct import (
    SHAPE,
    SPACING,
    _set_header,
    assert_is_phantom,
    nifti,
    phantom,
    ras_affine,
    series,
    slice_dataset,
)


def large(values: np.ndarray, **header) -> nib.Nifti1Image:
    """A volume of 120 x 100 x 22 mm."""
    return nib.Nifti1Image(values, np.diag([10.0, 10.0, 2.5, 1.0]) + 40 * np.eye(4, k=3), **header)


HU_FAULTS = {
    "offset with padding": (
        lambda v: np.where(v < -990, -3024, v + 2000).astype(np.int16),
        r"above 700 .*HU with an offset",
    ),
    "rescaled twice": (
        lambda v: (v - 1024).astype(np.int16),
        r"90% of the voxels lie below -1100 HU .*rescaled twice",
    ),
    "slope 10": (lambda v: (v * 10).astype(np.int16), "below -1100 HU"),
    "in g/cm3": (lambda v: (1 + v / 1000).astype(np.float32), "are not HU"),
}


@pytest.mark.parametrize("fault", HU_FAULTS)
def test_values_that_are_no_hounsfield_units(tmp_path, fault):
    change, message = HU_FAULTS[fault]
    nib.save(large(change(phantom().astype(np.float64))), tmp_path / "a.nii")
    with pytest.raises(ReadError, match=message):
        read_ct(tmp_path / "a.nii")


def test_values_that_are_odd_are_flagged_and_padding_is_no_fault(tmp_path):
    nib.save(large((phantom() // 10).astype(np.int16)), tmp_path / "a.nii")
    (note,) = read_ct(tmp_path / "a.nii").notes
    assert isinstance(note, Flag) and "no voxel below -100 HU, so no air" in note
    padded = phantom()
    padded[:4] = -3024
    nib.save(large(padded), tmp_path / "b.nii")
    assert read_ct(tmp_path / "b.nii").notes == ()
    crop = np.random.default_rng(0).integers(24, 1200, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(crop, ras_affine()), tmp_path / "c.nii")
    (note,) = read_ct(tmp_path / "c.nii").notes
    assert isinstance(note, Flag) and "none below 0: HU with an offset, or soft tissue" in note


# NIfTI


def blank(path, **header):
    """The phantom as it was stored in RAS order, with a header that states nothing about space."""
    image = nib.Nifti1Image((phantom() + 1024).astype(np.int16), None)
    image.header["pixdim"][1:4] = header.pop("pixdim", 1.0)
    nib.save(image, path)
    for offset in (252, 254):
        _set_header(path, offset, b"\0\0")
    return path


def test_a_blank_header_takes_what_the_table_gives(tmp_path):
    path = blank(tmp_path / "a.nii.gz")
    given = Given(tuple(SPACING), 1.0, -1024.0)
    volume = read_ct(path, given)
    np.testing.assert_array_equal(volume.array, phantom()[::-1])  # x to the left, as nibabel takes it
    np.testing.assert_allclose(volume.affine[:3, 3], -(np.array(SHAPE) - 1) / 2 * SPACING)
    np.testing.assert_allclose(volume.spacing, SPACING)
    assert "states no orientation" in volume.notes[0] and isinstance(volume.notes[0], Flag)
    np.testing.assert_allclose(ct_header(path, given).spacing, SPACING)


def test_what_the_table_gives_must_not_contradict_the_header(tmp_path):
    path = nifti(tmp_path / "a.nii")
    assert read_ct(path, Given(tuple(SPACING))).notes == ()
    with pytest.raises(ReadError, match=r"the affine says 0\.8 x 1\.1 x 2\.5 mm, the table 1 x 1 x 1 mm"):
        read_ct(path, Given((1.0, 1.0, 1.0)))
    with pytest.raises(ReadError, match="pixdim|the table 3 x 3 x 3"):
        read_ct(blank(tmp_path / "b.nii", pixdim=(0.8, 1.1, 2.5)), Given((3.0, 3.0, 3.0)))
    with pytest.raises(ReadError, match=r"the table gives spacing \(0, 1, 1\)"):
        read_ct(blank(tmp_path / "c.nii"), Given((0, 1, 1)))
    _set_header(path, 112, struct.pack("<ff", 1.0, -24.0))
    with pytest.raises(ReadError, match="states 1 and -24 for its scale, the table 1.0 and -1024.0"):
        read_ct(path, Given(None, 1.0, -1024.0))


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1)])
def test_an_identity_that_nobody_measured_keeps_its_axes_and_takes_the_steps_of_the_table(tmp_path, signs):
    nib.save(nib.Nifti1Image(phantom(), np.diag([*signs, 1.0])), tmp_path / "a.nii")
    volume = read_ct(tmp_path / "a.nii", Given((0.7, 0.8, 2.0)))
    np.testing.assert_allclose(volume.spacing, (0.7, 0.8, 2.0))
    np.testing.assert_array_equal(volume.array, phantom()[:: signs[0], :: signs[1]])
    assert isinstance(volume.notes[0], Flag) and "left and right are uncertain" in volume.notes[0]
    # a scanner's geometry has an origin
    nib.save(nib.Nifti1Image(phantom(), np.diag([*signs, 1.0]) + np.eye(4, k=3) * 40), tmp_path / "b.nii")
    with pytest.raises(ReadError, match=r"contradictory spacing: the affine says 1 x 1 x 1 mm, the table 0\.7"):
        read_ct(tmp_path / "b.nii", Given((0.7, 0.8, 2.0)))


def test_sform_and_qform_that_contradict_each_other(tmp_path):
    image = nib.Nifti1Image(phantom(), ras_affine())
    mirrored = ras_affine()
    mirrored[0] *= -1
    image.set_qform(mirrored, 1)
    nib.save(image, tmp_path / "a.nii")
    with pytest.raises(ReadError, match="sform and qform contradict each other by 180 degrees"):
        ct_header(tmp_path / "a.nii")
    turn = np.deg2rad(20)
    turned = ras_affine()
    rotation = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    turned[:3, :3] = rotation @ turned[:3, :3]
    image.set_qform(turned, 1)
    nib.save(image, tmp_path / "b.nii")
    assert "differ by 20 degrees" in ct_header(tmp_path / "b.nii").notes[0]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_more_bytes_than_the_shape_needs(tmp_path, suffix):
    path = nifti(tmp_path / f"a{suffix}")
    _set_header(path, 46, struct.pack("<h", SHAPE[2] - 2))
    with pytest.raises(ReadError, match=r"holds 480 bytes more than the shape 12 x 10 x 7"):
        ct_header(path)
    import gzip

    data = nifti(tmp_path / "b.nii").read_bytes() + b"\0" * 16
    path = tmp_path / f"c{suffix}"
    path.write_bytes(gzip.compress(data) if suffix == ".nii.gz" else data)
    assert read_ct(path).notes == ("16 bytes after the voxels ignored",)
    np.testing.assert_array_equal(read_ct(path).array, phantom())


def test_depth_and_spacing_that_cannot_be(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 72, struct.pack("<h", 8))
    with pytest.raises(ReadError, match="states 8 bits per voxel for int16"):
        ct_header(path)
    image = nib.Nifti1Image(phantom(), np.diag([0.0008, 0.0008, 0.0025, 1.0]))
    nib.save(image, tmp_path / "b.nii")
    with pytest.raises(ReadError, match=r"voxel spacing 0\.0008 x 0\.0008 x 0\.0025 mm, expected 0\.01 to 50"):
        ct_header(tmp_path / "b.nii")


# DICOM


def test_reports_and_damaged_captures_beside_a_series_hurt_nobody(tmp_path):
    folder = series(tmp_path / "s")
    report = slice_dataset(0, Modality="SR", SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", SeriesInstanceUID="7.1")
    for tag in ("Rows", "Columns", "PixelData"):
        delattr(report, tag)
    report.save_as(folder / "dose.dcm")
    capture = slice_dataset(0, SOPClassUID="1.2.840.10008.5.1.4.1.1.7", SeriesInstanceUID="7.2", PixelData=b"\0\0")
    capture.save_as(folder / "capture.dcm")
    assert_is_phantom(folder)
    notes = " | ".join(read_ct(folder).notes)
    assert "1 file left out: modality SR" in notes and "1 file left out: secondary capture" in notes


def test_localizers_that_do_not_say_so_are_left_out_by_their_plane(tmp_path):
    folder = series(tmp_path / "s")
    for number, plane in enumerate(([1, 0, 0, 0, 0, -1], [0, 1, 0, 0, 0, -1])):
        slice_dataset(
            0, SeriesInstanceUID="8.8", ImageOrientationPatient=plane, SOPInstanceUID=f"8.8.{number}"
        ).save_as(folder / f"scout{number}.dcm")
    assert_is_phantom(folder)
    assert "2 files left out: localizer (another plane)" in read_ct(folder).notes
    slice_dataset(0, SeriesInstanceUID="8.9").save_as(folder / "axial.dcm")
    with pytest.raises(ReadError, match=r"2 CT series \(9 \+ 1 files\)"):
        ct_header(folder)


def test_a_uid_that_all_slices_share_loses_no_slice(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"SOPInstanceUID": "1.2.3"})
    assert_is_phantom(folder)


def test_the_same_instance_with_other_pixels_is_no_copy(tmp_path):
    folder = series(tmp_path / "s")
    slice_dataset(3, PixelData=slice_dataset(4).PixelData).save_as(folder / "other.dcm")
    with pytest.raises(ReadError, match="appears twice"):
        ct_header(folder)


def test_a_rescale_that_is_missing(tmp_path):
    def without(index, signed):
        values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).astype(np.int16) - 1024 * signed
        dataset = slice_dataset(
            index, PixelData=values.tobytes(), PixelRepresentation=int(signed), BitsStored=16, HighBit=15
        )
        del dataset.RescaleSlope, dataset.RescaleIntercept
        return dataset

    for name, signed in (("unsigned", False), ("signed", True)):
        (tmp_path / name).mkdir()
        for index in range(SHAPE[2]):
            without(index, signed).save_as(tmp_path / name / f"{index}.dcm")
    with pytest.raises(ReadError, match="stores unsigned values with no RescaleIntercept") as caught:
        ct_header(tmp_path / "unsigned")
    assert "0.dcm" in str(caught.value)
    assert_is_phantom(tmp_path / "signed")
    (note,) = read_ct(tmp_path / "signed").notes
    assert isinstance(note, Flag) and "9 of 9 files state no rescale" in note


def test_padding_that_would_be_the_brightest_is_air(tmp_path):
    def padded(index):
        values = np.frombuffer(slice_dataset(index).PixelData, np.uint16).reshape(10, 12).copy()
        values[0, :2] = 63_536
        return {"PixelData": values.tobytes(), "BitsStored": 16, "HighBit": 15, "PixelPaddingValue": 63_536}

    folder = series(tmp_path / "s", change=padded)
    volume = read_ct(folder)
    truth = phantom()
    truth[-2:, -1, :] = -1000
    np.testing.assert_array_equal(volume.array, truth)
    assert volume.notes == ("18 voxels of padding set to air",)


def test_compression_with_loss_is_flagged(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"LossyImageCompression": "01" if i < 4 else "00"})
    assert_is_phantom(folder)
    assert "4 of 9 files were compressed with loss" in read_ct(folder).notes


def test_bits_that_contradict_each_other(tmp_path):
    folder = series(tmp_path / "s", change=lambda i: {"BitsStored": 17, "HighBit": 16} if i == 5 else {})
    with pytest.raises(ReadError, match=r"005\.dcm: contradicts itself: 17 bits stored up to bit 16, 16 allocated"):
        ct_header(folder)


def test_frames_without_positions_and_two_stacks_in_one_file(tmp_path):
    dataset = slice_dataset(0, NumberOfFrames=2)
    dataset.PixelData = dataset.PixelData * 2
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(ReadError, match="has 2 frames and no position for frame 1"):
        ct_header(tmp_path / "a.dcm")
    from pydicom.dataset import Dataset

    groups = []
    for _ in range(2):
        plane, group = Dataset(), Dataset()
        plane.ImagePositionPatient = [0, 0, 5]
        group.PlanePositionSequence = Sequence([plane])
        groups.append(group)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(groups)
    dataset.save_as(tmp_path / "b.dcm")
    with pytest.raises(ReadError, match=r"position 5\.0 mm appears twice"):
        ct_header(tmp_path / "b.dcm")


# Codecs

SYNTAXES = {
    "JPEG 2000": "1.2.840.10008.1.2.4.90",
    "JPEG-LS": "1.2.840.10008.1.2.4.80",
    "JPEG Lossless": "1.2.840.10008.1.2.4.70",
    "High-Throughput JPEG 2000": "1.2.840.10008.1.2.4.201",
}


@pytest.mark.parametrize("name", SYNTAXES)
def test_a_missing_codec_names_the_extra(tmp_path, monkeypatch, name):
    from pydicom.encaps import encapsulate
    from pydicom.pixels import get_decoder

    decoder = get_decoder(SYNTAXES[name])
    monkeypatch.setattr(decoder, "_available", {})
    dataset = slice_dataset(0)
    dataset.file_meta.TransferSyntaxUID = SYNTAXES[name]
    dataset.PixelData = encapsulate([b"\xff\x4f\xff\x51" + bytes(60)])
    dataset["PixelData"].is_undefined_length = True
    dataset["PixelData"].VR = "OB"
    dataset.save_as(tmp_path / "a.dcm")
    with pytest.raises(ReadError, match=rf"a\.dcm: is compressed as {name}.*no codec.*pip install 'medssml\[dicom\]'"):
        read_ct(tmp_path / "a.dcm")


@pytest.mark.parametrize("syntax", ["JPEGLSLossless", "JPEGLosslessProcess14_1", "JPEG2000Lossless"])
def test_lossless_syntaxes_read_as_the_same_volume(tmp_path, syntax):
    gdcm = pytest.importorskip("gdcm", reason="the extra [dicom] is not installed")
    folder = series(tmp_path / "s")
    for file in folder.iterdir():
        reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
        reader.SetFileName(str(file))
        assert reader.Read()
        change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, syntax)))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer.SetFileName(str(file))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()
    assert_is_phantom(folder)
