"""Pictures that hold no radiograph: black and white masks in any format."""

import numpy as np
import pytest
from PIL import Image

from medssml.readers import ReadError, read_xray, xray_header
from tests.readers.test_read_xray import dicom, picture

MASK = picture().astype(np.uint8) > 127


def test_a_png_of_one_bit_is_refused_for_what_it_is(tmp_path):
    Image.fromarray(MASK).save(tmp_path / "a.png")
    Image.fromarray(MASK.astype(np.uint8)).convert("P").save(tmp_path / "b.png", bits=1)
    for name in ("a.png", "b.png"):
        for read in (xray_header, read_xray):
            with pytest.raises(
                ReadError, match="is a PNG of 1 bit a pixel: black and white, so a mask or a drawing"
            ) as caught:
                read(tmp_path / name)
            assert caught.value.code == "content" and "gray values" in caught.value.fix


def test_two_values_alone_are_a_mask(tmp_path):
    Image.fromarray(MASK.astype(np.uint8) * 200).save(tmp_path / "a.png")
    dicom(tmp_path / "b.dcm", MASK.astype(np.uint16) * 4095)
    dicom(tmp_path / "c.dcm", picture(12), WindowCenter=2048, WindowWidth=1)
    for name in ("a.png", "b.dcm", "c.dcm"):
        with pytest.raises(ReadError, match=r"holds two values alone \(0 and .*\): a mask or a drawing, no radiograph"):
            read_xray(tmp_path / name)


TIFF = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01"
BROKEN = {
    "no header": b"Exif\0\0garbage!garbage!",
    "out of range": TIFF + b"\x03\0\x01\0\0\0\x09\0\0\0\0\0\0\0",
    "a word": TIFF + b"\x02\0\x04\0\0\0abc\0\0\0\0\0",
}


@pytest.mark.parametrize("fault", BROKEN)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_an_orientation_that_cannot_be_read_stops_nothing(tmp_path, fault, suffix):
    gray = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) * 2
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(gray).save(path, exif=BROKEN[fault])
    read = read_xray(path)
    np.testing.assert_allclose(read.array, gray / 255, atol=0.03)
    unread = (
        () if (fault, suffix) == ("no header", "jpg") else ("its EXIF orientation cannot be read: taken as upright",)
    )
    assert read.notes == xray_header(path).notes == unread
