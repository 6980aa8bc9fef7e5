"""What people really have: an input or more of each kind of fault that was met, as a check looks at it.

The verdict is the gravest level of what a deep check says of the file, its size and length aside.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from tests.corpus import eeg, radiographs, texts, volumes
from tests.corpus.case import Case, cut, put
from tests.corpus.recordings import brainvision
from tests.readers.test_read_ct import phantom, ras_affine, series, slice_dataset
from tests.readers.test_read_xray import picture

Maker = Callable[[Path], Path]
#: Voxels of 2 x 2 x 3 mm, somewhere in a scanner.
PLACED = np.array([[-2.0, 0, 0, 118.5], [0, -2.0, 0, 97.25], [0, 0, 3.0, -40.5], [0, 0, 0, 1]])


def body() -> np.ndarray:
    """(120, 120, 12) HU of a body's cross-section, 2 mm voxels."""
    x, y = np.meshgrid(np.linspace(-1, 1, 120), np.linspace(-1, 1, 120), indexing="ij")
    plane = np.where((x - 0.4) ** 2 + y**2 < 0.02, 600, np.where(x**2 + y**2 < 0.5, 40, -1000))
    noise = np.random.default_rng(0).normal(0, 30, (120, 120, 12))
    return (plane[:, :, None] + noise).astype(np.int16)


def ct(change: Callable[[np.ndarray], np.ndarray]) -> Maker:
    def make(folder: Path) -> Path:
        nib.save(nib.Nifti1Image(change(body()), PLACED), folder / "a.nii.gz")
        return folder / "a.nii.gz"

    return make


def _eight_bits(values: np.ndarray) -> np.ndarray:
    return np.round(np.round(np.clip((values + 1000) / 1400, 0, 1) * 255) * 1400 / 255 - 1000).astype(np.int16)


def _signed(bits: int) -> Maker:
    """Signed slices whose bits above the stored ones are in use in every second pixel."""

    def make(folder: Path) -> Path:
        path = series(folder / "s")
        for file in path.iterdir():
            data = bytearray(file.read_bytes())
            for at in range(len(data) - 200, len(data) - 1, 4):
                data[at + 1] ^= bits
            file.write_bytes(data)
        return path

    return make


def _without_preamble(folder: Path) -> Path:
    for file in series(folder / "s").iterdir():
        file.write_bytes(file.read_bytes()[132:])
    return folder / "s"


def _deflated(folder: Path) -> Path:
    """A slice in the transfer syntax that is deflated as a whole."""
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    path = folder / "s"
    path.mkdir()
    for index in range(9):
        dataset = slice_dataset(index)
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        dataset.save_as(path / f"{index:03d}.dcm", enforce_file_format=True)
    return path


def _bad_qform(folder: Path) -> Path:
    """A sound sform beside a quaternion that is none."""
    image = nib.Nifti1Image(phantom(), ras_affine())
    image.set_qform(ras_affine(), 1)
    nib.save(image, folder / "a.nii")
    data = bytearray((folder / "a.nii").read_bytes())
    data[256:268] = struct.pack("<3f", 2.0, 2.0, 2.0)
    return put(folder / "a.nii", bytes(data))


def _one_bit(folder: Path) -> Path:
    Image.fromarray((picture() > picture().mean()).repeat(8, 0).repeat(8, 1)).convert("1").save(folder / "a.png")
    return folder / "a.png"


def _mostly(level: float, share: float) -> Maker:
    """A radiograph of which a share is one gray, black or white."""

    def make(folder: Path) -> Path:
        values = np.random.default_rng(0).normal(120, 30, (200, 200)).clip(10, 245)
        values[: int(200 * share)] = level
        Image.fromarray(values.astype(np.uint8)).save(folder / "a.png")
        return folder / "a.png"

    return make


def _held(folder: Path) -> Path:
    """An EEG at the limits of its converter: a square wave with a second of signal."""
    signal = np.sign(np.sin(np.arange(4000) / 9))[None].repeat(3, 0) * 500.0
    signal[:, :100] = np.random.default_rng(0).normal(0, 20, (3, 100))
    return eeg.edf(folder, signal)


def _mixed_line_ends(folder: Path) -> Path:
    lines = ["MSH|^~\\&|A|B|C|D|20260101||ORU^R01|1|P|2.5", "PID|1||1", "OBR|1|||XR", "OBX|1|TX|1||No effusion.||||||F"]
    return put(folder / "a.hl7", "\n".join(lines) + "\n")


def _two_messages(folder: Path) -> Path:
    one = _mixed_line_ends(folder).read_text()
    return put(folder / "a.hl7", one + one.replace("PID|1||1", "PID|1||2"))


RED = "\x1b[31m"
KINDS: list[tuple[str, str, str, Maker, str]] = [
    ("ct", "a body", "accepted", ct(lambda v: v), ""),
    ("ct", "an 8-bit window brought to HU", "flagged", ct(_eight_bits), "step from one value"),
    (
        "ct",
        "more bone than a body has",
        "flagged",
        ct(lambda v: np.where(v > -500, v + 800, v)),
        "from -300 to 300 HU: 0 %",
    ),
    ("ct", "HU wrapped into uint16", "refused", ct(lambda v: v.astype(np.uint16)), "wrapped into unsigned 16 bits"),
    (
        "ct",
        "slope without a value",
        "refused",
        volumes.header((112, struct.pack("<2f", np.inf, np.nan))),
        "scl_slope inf",
    ),
    ("ct", "values beyond float", "refused", ct(lambda v: v.astype(np.float64) * 1e38), "overflow"),
    ("ct", "a qform that is none beside a sound sform", "flagged", _bad_qform, ""),
    ("ct", "signed with foreign bits", "refused", _signed(0x40), "bits"),
    (
        "ct",
        "a slice that is cut within a series",
        "refused",
        lambda f: cut(series(f / "s") / "004.dcm", -40).parent,
        "004.dcm.*truncated",
    ),
    ("ct", "without the preamble", "fixed", _without_preamble, ""),
    ("ct", "deflated", "accepted", _deflated, ""),
    ("ct", "one spacing tag of letters", "refused", lambda f: _letters(f), "000.dcm|00"),
    ("xray", "one bit", "refused", _one_bit, "two values|mask"),
    ("xray", "mostly black", "flagged", _mostly(0, 0.8), "least gray"),
    ("xray", "mostly white", "flagged", _mostly(255, 0.5), "greatest gray"),
    ("xray", "hardly any contrast", "flagged", lambda f: _flat(f), "hardly any contrast"),
    ("xray", "for processing", "refused", radiographs.tags(PresentationIntentType="FOR PROCESSING"), "FOR PROCESSING"),
    ("xray", "a mammogram", "refused", radiographs.tags(Modality="MG"), "MG"),
    (
        "xray",
        "a window beside the values",
        "refused",
        radiographs.tags(WindowCenter="40000", WindowWidth="10"),
        "lies outside its values",
    ),
    ("xray", "an undecodable frame", "refused", lambda f: _undecodable(f), "decoded"),
    ("eeg", "at the limits of the converter", "flagged", _held, "held at the greatest"),
    ("eeg", "a unit that is no voltage", "refused", lambda f: eeg.edf(f, unit="degC"), "no voltage"),
    ("eeg", "records counted as none", "flagged", eeg.field(236, "0", 8), "record"),
    ("eeg", "big-endian BrainVision", "accepted", lambda f: brainvision(f / "a.vhdr", eeg.SIGNAL), ""),
    (
        "report",
        "escapes of a terminal",
        "flagged",
        texts.file("a.txt", f"{RED}Findings: No effusion.\n"),
        "terminal escapes are taken out",
    ),
    (
        "report",
        "letters without width",
        "flagged",
        texts.file("a.txt", "No \u200beffusion\u202e of the lung.\n"),
        "zero-width .* right-to-left",
    ),
    (
        "report",
        "one word of many letters",
        "flagged",
        texts.file("a.txt", "Findings: " + "a" * 200_000),
        "longest word",
    ),
    ("report", "figures alone", "flagged", texts.file("a.txt", "1 2 3 4.5 6,7 8/9 mm 10 11"), "letters among"),
    (
        "report",
        "one byte that is no UTF-8",
        "flagged",
        texts.file("a.txt", "Größe normal, kein Erguss. ".encode() * 3 + b"\xfc."),
        "UTF-8|byte",
    ),
    ("report", "hl7 of line feeds", "accepted", _mixed_line_ends, ""),
    ("report", "two hl7 messages", "refused", _two_messages, "2 reports"),
    (
        "report",
        "written-out line ends",
        "flagged",
        texts.file("a.txt", "Findings:\\nNo effusion.\\nImpression:\\nNormal."),
        "line",
    ),
    (
        "report",
        "markdown headings",
        "accepted",
        texts.file("a.md", "## Findings\nNo effusion.\n\n## Impression\nNormal.\n"),
        "",
    ),
]


def _letters(folder: Path) -> Path:
    path = series(folder / "s")
    for file in path.iterdir():
        data = file.read_bytes()
        at = data.index(b"\x28\x00\x30\x00DS") + 8
        file.write_bytes(data[:at] + b"ab" + data[at + 2 :])
    return path


def _flat(folder: Path) -> Path:
    values = np.random.default_rng(0).integers(120, 124, (200, 200)).astype(np.uint8)
    Image.fromarray(values).save(folder / "a.png")
    return folder / "a.png"


def _undecodable(folder: Path) -> Path:
    from tests.verbs.test_check_console import undecodable

    undecodable(folder / "a.dcm")
    return folder / "a.dcm"


def cases() -> list[Case]:
    return [Case(family, name, verdict, make, says) for family, name, verdict, make, says in KINDS]
