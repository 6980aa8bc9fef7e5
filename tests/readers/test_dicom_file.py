"""DICOM that lost the header of a file, or is deflated as a whole: the same values, or a refusal that says what it is."""

import io
import zlib

import numpy as np
import pydicom
import pytest
from pydicom import dcmwrite
from pydicom.encaps import encapsulate
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian, RLELossless

from medssml.readers import ReadError, ct_header, read_ct, read_xray, xray_header
from medssml.readers.dicom_file import is_dicom
from medssml.readers.errors import Flag
from tests.readers.test_read_ct import SHAPE, phantom, series, slice_dataset
from tests.readers.test_read_xray import dicom, expected, picture


def bare(dataset, syntax) -> bytes:
    """The data set alone, as it travels on a network, without group 0002."""
    dataset.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    options = {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian, "force_encoding": True}
    dcmwrite(stream, dataset, **options)
    return stream.getvalue()[header_length(stream.getvalue(), b"\x08\0" if syntax.is_little_endian else b"\0\x08") :]


def header_length(data: bytes, group: bytes = b"\x08\0") -> int:
    """Bytes up to the first element of group 0008, behind the transfer syntax."""
    return data.index(group, data.index(b"\x02\0\x10\0") + 24)


@pytest.mark.parametrize("name", ["{:03d}.dcm", "IM{:04d}"])
@pytest.mark.parametrize("cut", [132, 128])
def test_a_series_without_preambles(tmp_path, name, cut):
    folder = series(tmp_path / "s", names=name.format)
    for file in folder.iterdir():
        file.write_bytes(file.read_bytes()[cut:])
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.array, phantom())
    (note,) = volume.notes
    assert note == "9 of 9 files without the preamble of a DICOM file (no DICM mark at byte 128)"
    assert not isinstance(note, Flag) and ct_header(folder).notes == volume.notes


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, RLELossless, ExplicitVRBigEndian])
@pytest.mark.parametrize("name", ["{:03d}.dcm", "IM{:04d}"])
def test_a_series_of_data_sets_alone_is_read_and_flagged_or_says_what_it_lacks(tmp_path, syntax, name):
    folder = tmp_path / "s"
    folder.mkdir()
    for index in range(SHAPE[2]):
        dataset = slice_dataset(index)
        if syntax == RLELossless:
            dataset.PixelData = encapsulate([bytes(64)])
            dataset["PixelData"].is_undefined_length = True
        elif not syntax.is_little_endian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
        (folder / name.format(index)).write_bytes(bare(dataset, syntax))
    if syntax == RLELossless:
        with pytest.raises(ReadError, match="has compressed pixels, and no header of a file that says how") as caught:
            ct_header(folder)
        assert caught.value.code == "codec" and caught.value.file.endswith(name.format(0))
        return
    volume = read_ct(folder)
    np.testing.assert_array_equal(volume.array, phantom())
    (note,) = volume.notes
    assert isinstance(note, Flag) and "9 of 9 files without the header of a DICOM file" in note
    assert ("implicit VR, little" if syntax == ImplicitVRLittleEndian else "explicit VR, big") in note


def test_a_radiograph_without_its_header(tmp_path):
    path = dicom(tmp_path / "a.dcm", picture(12))
    path.write_bytes(path.read_bytes()[132:])
    np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)
    assert xray_header(path).notes == read_xray(path).notes
    assert "without the preamble" in read_xray(path).notes[0]


@pytest.mark.parametrize("head", [b"\x08\0 is a text", b"\2\0\0\0", b"II*\0\x08\0\0\0" + bytes(200), b"\x08\0\x05"])
def test_what_only_begins_alike_is_no_dicom(tmp_path, head):
    (tmp_path / "a").write_bytes(head)
    assert not is_dicom(tmp_path / "a")


def test_deflated_files_are_inflated(tmp_path):
    def deflated(path, dataset):
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path)

    folder = tmp_path / "s"
    folder.mkdir()
    for index in range(SHAPE[2]):
        deflated(folder / f"{index:03d}.dcm", slice_dataset(index))
    np.testing.assert_array_equal(read_ct(folder).array, phantom())
    assert read_ct(folder).notes == () == ct_header(folder).notes
    data = (folder / "004.dcm").read_bytes()
    (folder / "004.dcm").write_bytes(data[:-60])
    with pytest.raises(ReadError, match="is truncated: its deflated data end after") as caught:
        ct_header(folder)
    assert caught.value.file.endswith("004.dcm")
    (folder / "004.dcm").write_bytes(data[:-200] + bytes(200))
    with pytest.raises(ReadError, match=r"004\.dcm: is deflated and damaged|004\.dcm: is truncated"):
        ct_header(folder)


def test_a_deflated_file_is_not_inflated_beyond_what_its_header_declares(tmp_path):
    """100 MiB of zeros, in 100 kB behind an image of 240 bytes."""
    path = dicom(tmp_path / "a.dcm", picture(12))
    data = path.read_bytes()
    end = header_length(data)
    meta = data[:end].replace(b"\x14\x001.2.840.10008.1.2.1\0", b"\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    sound = packer.compress(data[end:]) + packer.flush()
    path.write_bytes(meta + sound)
    np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    path.write_bytes(meta + packer.compress(data[end:] + bytes(100 << 20)) + packer.flush())
    with pytest.raises(ReadError, match="holds more than the 108 bytes of pixels that its header declares"):
        xray_header(path)


def test_a_syntax_that_the_elements_contradict_is_read_by_the_elements_and_nobody_is_warned(tmp_path):
    from medssml.foreign_text import collecting

    path = dicom(tmp_path / "a.dcm", picture(12))
    explicit = path.read_bytes()
    implicit = bare(pydicom.dcmread(path), ImplicitVRLittleEndian)
    path.write_bytes(explicit[: header_length(explicit)] + implicit)
    with collecting() as heard:
        np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)
    assert heard == [] and read_xray(path).notes == ()
