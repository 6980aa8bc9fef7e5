"""Fields of a NIfTI header that are not needed stop nothing; scale factors that are none are told."""

import struct

import nibabel as nib
import numpy as np
import pytest

from medssml.readers import ReadError, ct_header, read_ct
from medssml.readers.errors import Flag
from medssml.readers.nifti import Given
from tests.readers.test_read_ct import SPACING, _set_header, nifti, phantom, ras_affine

QUATERNION, OFFSET, PIXDIM, SFORM_CODE = 256, 268, 76, 254


def formed(path, affine=None, sform: bool = True):
    """The phantom with an sform and a qform, or with a qform alone."""
    image = nib.Nifti1Image(phantom(), ras_affine() if affine is None else affine)
    image.set_sform(image.affine, int(sform))
    image.set_qform(image.affine, 1)
    nib.save(image, path)
    return path


def floats(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


@pytest.mark.parametrize(
    ("offset", "value", "said"),
    [
        (QUATERNION, floats(0, 0, 1.0000005), ""),
        (PIXDIM, floats(0), ""),
        (PIXDIM, floats(np.nan), ""),
        (PIXDIM, floats(7), ""),
        (QUATERNION, floats(3, 4, 0), "qform has a quaternion of length 5, expected 1; the sform is used"),
        (QUATERNION, floats(np.nan, 0, 0), "qform has a quaternion of length nan, expected 1; the sform is used"),
        (OFFSET, floats(np.inf, 0, 0), "qform holds NaN or infinite values; the sform is used"),
    ],
)
def test_a_qform_beside_a_sound_sform_stops_nothing(tmp_path, offset, value, said):
    affine = ras_affine() @ np.diag([-1, -1, 1, 1])
    path = formed(tmp_path / "a.nii", affine)
    _set_header(path, offset, value)
    volume = read_ct(path)
    np.testing.assert_array_equal(volume.array, phantom()[::-1, ::-1])
    np.testing.assert_allclose(volume.spacing, SPACING, atol=1e-5)
    assert volume.notes == ((said,) if said else ())
    assert all(isinstance(note, Flag) for note in volume.notes)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "PIR", "SAL", "IPL", "LAS"])
def test_a_qform_alone_is_as_nibabel_reads_it(tmp_path, codes):
    image = nib.load(nifti(tmp_path / "a.nii", codes))
    turn = nib.Nifti1Image(np.asarray(image.dataobj), image.affine)
    turn.set_sform(None, 0)
    turn.set_qform(image.affine, 1)
    nib.save(turn, tmp_path / "b.nii")
    volume = read_ct(tmp_path / "b.nii")
    np.testing.assert_array_equal(volume.array, phantom())
    np.testing.assert_allclose(volume.affine, ras_affine(), atol=1e-4)


def test_a_qform_alone_whose_quaternion_was_rounded_and_whose_mirror_is_not_stated(tmp_path):
    affine = ras_affine() @ np.diag([-1, -1, 1, 1])
    path = formed(tmp_path / "a.nii", affine, sform=False)
    _set_header(path, QUATERNION, floats(0, 0, 1.0000005))
    _set_header(path, PIXDIM, floats(0))
    np.testing.assert_array_equal(read_ct(path).array, phantom()[::-1, ::-1])
    mirrored = formed(tmp_path / "b.nii", ras_affine() @ np.diag([-1, 1, 1, 1]), sform=False)  # pixdim[0] is -1
    np.testing.assert_array_equal(read_ct(mirrored).array, phantom()[::-1])
    _set_header(path, QUATERNION, floats(0, 0, 1.2))
    with pytest.raises(ReadError, match=r"qform has a quaternion of length 1\.2, expected 1") as caught:
        ct_header(path)
    assert caught.value.code == "geometry"


def test_a_dimension_of_0_behind_the_third_stands_for_1(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 40, struct.pack("<h", 4))
    _set_header(path, 48, struct.pack("<h", 0))
    np.testing.assert_array_equal(read_ct(path).array, phantom())


SCALES = [
    ((np.nan, 0), "scl_slope is nan, which is none: values taken as they are stored"),
    ((np.nan, np.nan), "scl_slope is nan, which is none: values taken as they are stored"),
    ((np.nan, -1024), "scl_slope is nan, which is none: scl_inter -1024 is not applied either"),
    ((0, -1024), "scl_slope is 0, which is none: scl_inter -1024 is not applied either"),
    ((1, np.nan), "scl_inter is nan, which is none: 0 taken"),
    ((0, 0), ""),
    ((0, np.nan), ""),
]


@pytest.mark.parametrize(("scale", "said"), SCALES)
def test_scale_factors_that_are_none_are_told(tmp_path, scale, said):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 112, floats(*scale))
    volume = read_ct(path)
    np.testing.assert_array_equal(volume.array, phantom())
    assert volume.notes == ct_header(path).notes == ((said,) if said else ())
    assert all(note.code == "assumed" for note in volume.notes)


@pytest.mark.parametrize("scale", [(np.inf, 0), (np.inf, np.nan), (np.nan, np.inf), (0, -np.inf), (1, np.inf)])
def test_infinite_scale_factors_are_refused(tmp_path, scale):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 112, floats(*scale))
    for read in (ct_header, read_ct):
        with pytest.raises(ReadError, match="has scl_slope .*inf|scl_inter .*inf"):
            read(path)
    with pytest.raises(ReadError, match="inf"):
        ct_header(path, Given(None, 1.0, 0.0))


def test_values_that_overflow_are_told_as_such(tmp_path):
    path = nifti(tmp_path / "a.nii")
    _set_header(path, 112, floats(3e38, 0))
    with pytest.raises(ReadError, match=r"stored values -1000 to 900 with scl_slope 3e\+38 and scl_inter 0 overflow"):
        read_ct(path)
    nib.save(nib.Nifti1Image(phantom().astype(np.float64) * 1e300, ras_affine()), tmp_path / "b.nii")
    with pytest.raises(
        ReadError, match=r"stored values -1e\+303 to 9e\+302 with scl_slope 1 and .* overflow"
    ) as caught:
        read_ct(tmp_path / "b.nii")
    assert caught.value.code == "units"


@pytest.mark.parametrize("offset", [0, -1024])
def test_hounsfield_units_that_wrapped_into_unsigned_values_are_told_as_such(tmp_path, offset):
    values = (phantom().astype(np.int32) + 24).astype(np.uint16)
    nib.save(nib.Nifti1Image(values, ras_affine()), tmp_path / "a.nii")
    _set_header(tmp_path / "a.nii", 112, floats(1, offset))
    message = (
        r"HU below 0 wrapped into unsigned 16 bits: in 90% of the voxels \d+ to \d+ are -\d+ to -\d+, 65536 too high"
    )
    with pytest.raises(ReadError, match=message) as caught:
        read_ct(tmp_path / "a.nii")
    assert caught.value.code == "units"


def test_values_above_all_hounsfield_units_are_told_as_such(tmp_path):
    values = phantom().astype(np.float32)
    values[0, 0, 0] = 50_000
    nib.save(nib.Nifti1Image(values, ras_affine()), tmp_path / "a.nii")
    with pytest.raises(ReadError, match=r"lie above 31,743 \(up to 50000\): more than HU can be"):
        read_ct(tmp_path / "a.nii")
