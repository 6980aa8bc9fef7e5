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
