"""Radiographs: every way of writing one asymmetric picture reads as the same gray image; pydicom and Pillow are oracles."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.pixels import apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from medssml.readers import ReadError, read_xray, xray_header


def picture(bits: int = 8) -> np.ndarray:
    """(6, 9) values up to 2^bits - 1, brighter downwards and to the right."""
    ramp = np.arange(6)[:, None] * 9 + np.arange(9)[None, :]
    return (ramp * ((1 << bits) - 1) // ramp.max()).astype(np.uint16)


def dicom(path: Path, stored: np.ndarray, bits: int = 12, **tags) -> Path:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset = FileDataset("x", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.Modality, dataset.PatientName = "DX", "Secret^Name"
    dataset.Rows, dataset.Columns = stored.shape[:2]
    dataset.SamplesPerPixel = 1 if stored.ndim == 2 else 3
    dataset.PhotometricInterpretation = "MONOCHROME2" if stored.ndim == 2 else "RGB"
    dataset.BitsAllocated = stored.dtype.itemsize * 8
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(stored.dtype.kind == "i")
    if stored.ndim == 3:
        dataset.PlanarConfiguration = 0
    data = stored.tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.save_as(path)
    return path


def png_file(width: int, height: int, bits: int, rows: bytes, colour: int = 0) -> bytes:
    """A PNG of filtered `rows`."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def expected(bits: int = 8) -> np.ndarray:
    return picture(bits) / np.float64((1 << bits) - 1)


def test_png_in_every_mode_reads_as_the_same_gray(tmp_path):
    gray = Image.fromarray(picture().astype(np.uint8))
    rgba = gray.convert("RGBA")
    rgba.putalpha(128)
    palette = gray.convert("P")
    cases = {"L": gray, "RGB": gray.convert("RGB"), "RGBA": rgba, "P": palette, "LA": gray.convert("LA")}
    for mode, image in cases.items():
        image.save(tmp_path / f"{mode}.png")
        read = read_xray(tmp_path / f"{mode}.png")
        assert read.array.dtype == np.float32 and read.bits == 8
        np.testing.assert_allclose(read.array, expected(), atol=1e-6, err_msg=mode)
        assert bool(read.notes) == (mode != "L")
        assert xray_header(tmp_path / f"{mode}.png").shape == (6, 9)


@pytest.mark.parametrize("bits", [10, 12, 16])
def test_16_bit_png_is_scaled_by_the_bits_that_are_used(tmp_path, bits):
    Image.fromarray(picture(bits)).save(tmp_path / "a.png")
    read = read_xray(tmp_path / "a.png")
    assert read.bits == bits
    assert len(read.notes) == (bits < 16)
    np.testing.assert_allclose(read.array, expected(bits), atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpeg_is_turned_upright(tmp_path, orientation):
    upright = np.kron(picture().astype(np.uint8), np.ones((8, 8), np.uint8))
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = Image.fromarray(upright)
    stored = image.transpose(undo[orientation]) if orientation > 1 else image
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "a.jpg", exif=exif, quality=100)
    read = read_xray(tmp_path / "a.jpg")
    np.testing.assert_allclose(read.array, upright / 255, atol=0.02)
    assert xray_header(tmp_path / "a.jpg").shape == upright.shape


def test_monochrome1_equals_monochrome2(tmp_path):
    stored = picture(12)
    one = read_xray(dicom(tmp_path / "1.dcm", 4095 - stored, PhotometricInterpretation="MONOCHROME1"))
    two = read_xray(dicom(tmp_path / "2.dcm", stored))
    np.testing.assert_allclose(one.array, two.array, atol=1e-6)
    np.testing.assert_allclose(two.array, expected(12), atol=1e-6)
    assert one.notes == ("MONOCHROME1 inverted",) and two.notes == ()


def test_overlay_bits_signed_values_and_depth(tmp_path):
    stored = picture(12)
    overlaid = read_xray(dicom(tmp_path / "a.dcm", stored | np.uint16(0xA000)))
    np.testing.assert_allclose(overlaid.array, expected(12), atol=1e-6)
    signed = ((stored.astype(np.int16) - 2048).view(np.uint16) & 0x0FFF).view(np.int16)
    np.testing.assert_allclose(read_xray(dicom(tmp_path / "b.dcm", signed)).array, expected(12), atol=1e-6)
    eight = read_xray(dicom(tmp_path / "c.dcm", picture().astype(np.uint8), bits=8))
    np.testing.assert_allclose(eight.array, expected(), atol=1e-6)


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
def test_window_equals_pydicom(tmp_path, function):
    tags = {
        "WindowCenter": 1800,
        "WindowWidth": 2500,
        "VOILUTFunction": function,
        "RescaleSlope": 2,
        "RescaleIntercept": -300,
    }
    path = dicom(tmp_path / "a.dcm", picture(12), **tags)
    dataset = Dataset()
    for key, value in tags.items():
        setattr(dataset, key, value)
    dataset.BitsStored, dataset.PixelRepresentation, dataset.PhotometricInterpretation = 12, 0, "MONOCHROME2"
    reference = apply_voi_lut(picture(12).astype(np.float64) * 2 - 300, dataset)
    low, high = -300, 4095 * 2 - 300
    # pydicom scales to the range of the values, we to [0, 1]
    np.testing.assert_allclose(read_xray(path).array, (reference - low) / (high - low), atol=1e-3)


def test_voi_and_modality_lut(tmp_path):
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    entries = (np.arange(4096) ** 2 // 256).astype(np.uint16)
    table.add_new("LUTData", "OW", entries.tobytes())
    path = dicom(tmp_path / "a.dcm", picture(12), VOILUTSequence=Sequence([table]))
    np.testing.assert_allclose(read_xray(path).array, entries[picture(12)] / 65535, atol=1e-6)
    path = dicom(tmp_path / "b.dcm", picture(12), ModalityLUTSequence=Sequence([table]))
    np.testing.assert_allclose(read_xray(path).array, entries[picture(12)] / 65535, atol=1e-6)


def test_rgb_and_palette_dicom(tmp_path):
    colour = np.repeat(picture().astype(np.uint8)[..., None], 3, axis=2)
    np.testing.assert_allclose(read_xray(dicom(tmp_path / "a.dcm", colour, bits=8)).array, expected(), atol=1e-3)
    tags = {}
    for name in ("Red", "Green", "Blue"):
        tags[f"{name}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
        tags[f"{name}PaletteColorLookupTableData"] = np.arange(255, -1, -1, dtype=np.uint8).tobytes()
    stored = 255 - picture().astype(np.uint8)
    path = dicom(tmp_path / "b.dcm", stored, bits=8, PhotometricInterpretation="PALETTE COLOR", **tags)
    np.testing.assert_allclose(read_xray(path).array, expected(), atol=1e-3)


def test_uncompressed_ybr_is_read_by_its_brightness(tmp_path):
    colour = np.full((6, 9, 3), 128, np.uint8)
    colour[:, :, 0] = picture()
    path = dicom(tmp_path / "a.dcm", colour, bits=8, PhotometricInterpretation="YBR_FULL")
    np.testing.assert_allclose(read_xray(path).array, expected(), atol=1e-6)
    path = dicom(tmp_path / "b.dcm", colour, bits=8, PhotometricInterpretation="YBR_FULL_422")
    with pytest.raises(ReadError, match="subsampled colour"):
        xray_header(path)


@pytest.mark.parametrize(
    ("position", "meaning", "view"),
    [("PA", "", "PA"), ("AP", "lateral", "AP"), ("LL", "", "LATERAL"), ("", "postero-anterior", "PA"),
     ("", "antero-posterior", "AP"), ("", "left lateral", "LATERAL"), ("", "postero-anterior oblique", "OBLIQUE"),
     ("RAO", "", "OBLIQUE"), ("", "", ""), ("SWIMMERS", "", "")],
)  # fmt: skip
def test_the_view_is_recorded(tmp_path, position, meaning, view):
    code = Dataset()
    code.CodeMeaning = meaning
    tags = {"ViewPosition": position, "ViewCodeSequence": Sequence([code] if meaning else [])}
    path = dicom(tmp_path / "a.dcm", picture(12), **tags)
    assert read_xray(path).view == xray_header(path).view == view


@pytest.mark.parametrize(("directions", "said"), [(["L", "F"], ""), (["R", "F"], "mirrored"), (["L", "H"], "upside")])
def test_an_image_that_is_said_to_be_turned_is_flagged(tmp_path, directions, said):
    path = dicom(tmp_path / "a.dcm", picture(12), ViewPosition="PA", PatientOrientation=directions)
    notes = read_xray(path).notes
    assert xray_header(path).notes == notes and len(notes) == bool(said) and said in " ".join(notes)
    np.testing.assert_allclose(read_xray(path).array, expected(12), atol=1e-6)


def test_bits_outside_the_image_are_named(tmp_path):
    stored = picture(12)
    overlaid = read_xray(dicom(tmp_path / "a.dcm", stored | np.uint16(0x8000)))
    assert overlaid.notes == ("bits above the 12 of the image are in use in 100.0% of the pixels; they are ignored",)
    path = dicom(tmp_path / "b.dcm", stored | np.uint16(0x8000))
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000102, "US", 15)
    dataset.save_as(path)
    assert read_xray(path).notes == ("overlay removed from the upper bits",)
    with pytest.raises(ReadError, match="contradicts itself: 12 bits stored up to bit 16, 16 allocated"):
        read_xray(dicom(tmp_path / "c.dcm", stored, HighBit=16))
    with pytest.raises(ReadError, match="contradicts itself: 20 bits stored"):
        xray_header(dicom(tmp_path / "d.dcm", stored, bits=20))


def test_alpha_that_varies_and_deep_colour_are_flagged(tmp_path):
    rgba = Image.fromarray(picture().astype(np.uint8)).convert("RGBA")
    rgba.putpixel((0, 0), (0, 0, 0, 7))
    rgba.save(tmp_path / "a.png")
    assert "alpha channel that varies dropped" in read_xray(tmp_path / "a.png").notes
    deep = np.repeat((picture(16)).astype(">u2")[..., None], 3, axis=2)
    rows = b"".join(b"\0" + row.tobytes() for row in deep)
    (tmp_path / "b.png").write_bytes(png_file(9, 6, 16, rows, colour=2))
    read = read_xray(tmp_path / "b.png")
    assert "8 bits a channel" in read.notes[0]
    np.testing.assert_allclose(read.array, expected(16), atol=1 / 255)


def test_cmyk_and_low_depth_pictures(tmp_path):
    gray = np.kron(picture().astype(np.uint8), np.ones((8, 8), np.uint8))
    Image.fromarray(gray).convert("CMYK").save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_xray(tmp_path / "a.jpg").array, gray / 255, atol=0.03)
    for bits in (2, 4):
        levels = gray >> (8 - bits)
        packed = [np.packbits(np.unpackbits(row[:, None], axis=1)[:, -bits:].ravel()).tobytes() for row in levels]
        rows = b"".join(b"\0" + row for row in packed)
        (tmp_path / "b.png").write_bytes(png_file(72, 48, bits, rows))
        np.testing.assert_allclose(read_xray(tmp_path / "b.png").array, levels / (2**bits - 1), atol=1e-6)


def test_spacing_and_burned_in_annotation(tmp_path):
    tags = {"ImagerPixelSpacing": [0.14, 0.15], "BurnedInAnnotation": "YES"}
    read = read_xray(dicom(tmp_path / "a.dcm", picture(12), **tags))
    np.testing.assert_allclose(read.spacing, [0.14, 0.15])
    assert read.notes == ("burned-in annotation",) == xray_header(tmp_path / "a.dcm").notes


DICOM_FAULTS = {
    "CT": ({"Modality": "CT"}, "modality CT, not a radiograph"),
    "frames": ({"NumberOfFrames": 2, "PixelData": b"\0" * 216}, "has 2 frames"),
    "huge": ({"Rows": 65_000, "Columns": 65_000}, "declares 7.87 GiB, limit 2 GiB"),
    "cut": ({"PixelData": b"\0\1" * 20}, "is truncated: .* of 108 pixel bytes"),
    "constant": ({"PixelData": b"\0" * 108}, "every pixel is 0"),
    "slope": ({"RescaleSlope": 0}, "RescaleSlope 0"),
}


@pytest.mark.parametrize("fault", DICOM_FAULTS)
def test_faulty_dicom(tmp_path, fault):
    tags, message = DICOM_FAULTS[fault]
    with pytest.raises(ReadError, match=message) as caught:
        read_xray(dicom(tmp_path / "a.dcm", picture(12), **tags))
    assert "Secret" not in str(caught.value)


def test_truncated_pictures_are_found_from_the_header_pass(tmp_path):
    big = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    for suffix in ("png", "jpg"):
        big.save(tmp_path / f"a.{suffix}")
        whole = (tmp_path / f"a.{suffix}").read_bytes()
        for keep in (4, 20, len(whole) // 2, len(whole) - 70):
            path = tmp_path / f"{keep}.{suffix}"
            path.write_bytes(whole[:keep])
            for read in (read_xray, xray_header):
                with pytest.raises(ReadError):
                    read(path)


def test_a_flipped_bit_in_a_png_is_found_by_the_checksum(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(picture().astype(np.uint8)).save(path)
    data = bytearray(path.read_bytes())
    data[data.index(b"IDAT") + 8] ^= 4
    path.write_bytes(data)
    with pytest.raises(ReadError, match="is damaged"):
        read_xray(path)


def test_a_png_that_declares_more_than_the_limit(tmp_path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    for read in (read_xray, xray_header):
        with pytest.raises(ReadError):
            read(tmp_path / "a.png")


def test_foreign_files(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    Image.fromarray(picture().astype(np.uint8)).save(tmp_path / "b.png", "GIF")
    for name, message in {"a.png": "not PNG", "b.png": "not PNG", "c.png": "no such file"}.items():
        with pytest.raises(ReadError, match=message):
            read_xray(tmp_path / name)


def test_mutated_pictures_raise_read_errors_alone(tmp_path):
    rng = np.random.default_rng(0)
    sources = []
    for suffix in ("png", "jpg"):
        Image.fromarray(rng.integers(0, 256, (32, 32), np.uint8)).save(tmp_path / f"a.{suffix}")
        sources.append((tmp_path / f"a.{suffix}").read_bytes())
    sources.append(dicom(tmp_path / "a.dcm", picture(12), WindowCenter=3, WindowWidth=4).read_bytes())
    refused = 0
    for number in range(150):
        data = bytearray(sources[number % 3])
        for _ in range(rng.integers(1, 6)):
            data[rng.integers(0, len(data))] = rng.integers(0, 256)
        (tmp_path / "m").write_bytes(data)
        try:
            read_xray(tmp_path / "m")
        except ReadError as error:
            refused += 1
            assert error.fix, error
    assert 0 < refused < 150  # the mutations are neither idle nor all fatal
