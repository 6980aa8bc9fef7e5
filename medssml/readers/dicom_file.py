"""Opens DICOM: a file with its header, a data set that lost it, and a file that is deflated as a whole.

A data set without the first 132 bytes of a file is what travels on a network, and what some exports leave on a disk. A
deflated file hides its true size: what its own header does not account for is never inflated.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medssml.foreign_text import collecting
from medssml.readers.dicom_numbers import tag_of
from medssml.readers.errors import Flag, ReadError, declared_bytes, human

if TYPE_CHECKING:
    from pydicom.dataset import FileDataset

_MARK = b"DICM"
_HEAD = 132
_DEFLATED = "1.2.840.10008.1.2.1.99"
_EXPLICIT = "1.2.840.10008.1.2.1"
#: Elements of a header lie within; pixels that a deflated file holds beyond its claim are refused after as many spare bytes.
_LONGEST_HEADER = 16 << 20
_SPARE = 1 << 20
_CHUNK = 1 << 18
_UNDEFINED = b"\xff\xff\xff\xff"
_LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
_SHORT = tuple(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
#: Declared explicit and written implicit, as some vendors do, or the other way round: the elements themselves tell.
_HARMLESS = re.compile("Expected (ex|im)plicit VR, but found (ex|im)plicit VR")
CONVERT = "convert it to an uncompressed syntax (dcmconv, gdcmconv --raw)"


def is_dicom(path: Path) -> bool:
    """Whether `path` is DICOM: the DICM mark at byte 128 or 0, or a data set of group 0002 or 0008 at byte 0."""
    with path.open("rb") as file:
        return _first_group(file.read(_HEAD)) is not None


def read_dataset(path: Path, tags: Sequence[Any], *, pixels: bool = False) -> tuple[FileDataset, int]:
    """The elements `tags` of a DICOM file, and how many bytes follow the last one that was read.

    Args:
        path: a regular file.
        tags: names or numbers of elements; all others are skipped.
        pixels: read beyond the pixels, which `tags` may name; else stop before them.

    Returns:
        the dataset, whose `file_meta.TransferSyntaxUID` tells how its pixels are to be read, and the bytes that follow.

    Raises:
        ReadError: no DICOM, no or an unknown transfer syntax, or a deflated file that is cut or holds more than it declares.
    """
    import pydicom

    tags = [tag_of(tag) for tag in tags]
    with path.open("rb") as file:
        head = file.read(_HEAD)
        first = _first_group(head)
        if first is None:
            reason = "is not DICOM (no DICM mark at byte 128, no data set at byte 0)"
            raise ReadError(path, reason, "name a DICOM file", code="format")
        syntax, end = _transfer_syntax(file, first)
        if syntax is None and first:
            raise ReadError(path, "names no transfer syntax", "export the file again")
        if syntax is not None and not pydicom.uid.UID(syntax).is_transfer_syntax:
            reason = f"has transfer syntax {syntax[:64]}, which is none, so not supported"
            raise ReadError(path, reason, CONVERT, code="codec")
        if syntax == _DEFLATED:
            dataset, rest = _deflated(path, file, end, tags, pixels)
        else:
            file.seek(0)
            # the library knows the mark behind a preamble alone
            marked = first == len(_MARK)
            stream: IO[bytes] = io.BytesIO(bytes(_HEAD - first) + file.read()) if marked else file
            with collecting() as heard:
                dataset = pydicom.dcmread(stream, stop_before_pixels=not pixels, specific_tags=tags, force=True)
                heard[:] = [line for line in heard if not _HARMLESS.search(line)]
            at = stream.tell()
            if syntax is None:
                _guess_syntax(dataset, stream, path)
            rest = stream.seek(0, io.SEEK_END) - at
        # what `lost_header` tells from: a preamble, none, or not even a header that names the syntax
        dataset.preamble = None if syntax is None else bytes(first == _HEAD)
        return dataset, rest


def lost_header(dataset: FileDataset) -> str:
    """What to note of a data set that came without the header of a DICOM file; "" of a whole file."""
    if dataset.preamble:
        return ""
    if dataset.preamble == b"":
        return "without the preamble of a DICOM file (no DICM mark at byte 128)"
    order = "little" if dataset.original_encoding[1] else "big"
    kind = "implicit" if dataset.original_encoding[0] else "explicit"
    told = f"without the header of a DICOM file, so without a transfer syntax: read as {kind} VR, {order} endian"
    return Flag(told, "assumed")


def _first_group(head: bytes) -> int | None:
    """The byte at which the first element of a DICOM file stands, None where `head` starts no DICOM file."""
    if head[_HEAD - len(_MARK) :] == _MARK:
        return _HEAD
    if head.startswith(_MARK):
        return len(_MARK)
    return 0 if _starts_dataset(head) else None


def _starts_dataset(head: bytes) -> bool:
    """Whether an element of group 0002 or 0008 stands at byte 0, explicit in either byte order, or implicit."""
    if len(head) < 16:
        return False
    group, element, vr = head[:2], int.from_bytes(head[2:4], "little"), head[4:6]
    if vr in _SHORT + _LONG:
        return group in (b"\2\0", b"\x08\0", b"\0\x08")
    length = int.from_bytes(head[4:8], "little")
    if group != b"\x08\0" or element > 0x70 or length % 2 or length > 1024:
        return False
    following = head[8 + length : 12 + length]
    return len(following) < 4 or (following[:2] in (b"\x08\0", b"\x10\0") and following != head[:4])


def _transfer_syntax(file: IO[bytes], start: int) -> tuple[str | None, int]:
    """The transfer syntax that group 0002 names, None where it names none, and the byte at which the group ends."""
    syntax = None
    file.seek(start)
    while True:
        at, head = file.tell(), file.read(8)
        if len(head) < 8 or head[:2] != b"\2\0":
            return syntax, at
        if head[4:6] in _LONG:
            length = int.from_bytes(file.read(4), "little")
        elif head[4:6] in _SHORT:
            length = int.from_bytes(head[6:8], "little")
        else:  # some writers leave the group implicit
            length = int.from_bytes(head[4:8], "little")
        if head[2:4] == b"\x10\0":
            syntax = file.read(min(length, 128)).decode("ascii", "replace").strip(" \0")
        else:
            file.seek(length, io.SEEK_CUR)


def _guess_syntax(dataset: FileDataset, stream: IO[bytes], path: Path) -> None:
    """States the syntax that the first element showed, which tells nothing of compressed pixels: those are refused."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    implicit, little = dataset.original_encoding
    compressed = "PixelData" in dataset and dataset["PixelData"].is_undefined_length
    if compressed or stream.read(12)[8 - 4 * bool(implicit) :][:4] == _UNDEFINED:
        reason = "has compressed pixels, and no header of a file that says how"
        raise ReadError(path, reason, "export the file again, with its header", code="codec")
    explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _deflated(path: Path, file: IO[bytes], start: int, tags: list[Any], pixels: bool) -> tuple[FileDataset, int]:
    """As `read_dataset`, of a body from byte `start` that is inflated as far as its own header says, and no further."""
    import pydicom

    file.seek(start)
    decoder = zlib.decompressobj(-zlib.MAX_WBITS)
    body = io.BytesIO()
    _inflate(decoder, file, body, _LONGEST_HEADER, path)
    body.seek(0)
    needed = ["Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "BitsAllocated"]
    header = pydicom.dcmread(body, stop_before_pixels=True, specific_tags=needed, force=True)
    begin = body.tell()
    shape = [int(header.get(name) or 1) for name in needed[:4]]
    claim = declared_bytes(path, shape, max(1, int(header.get("BitsAllocated") or 8) // 8))
    body.seek(0, io.SEEK_END)
    _inflate(decoder, file, body, begin + claim + _SPARE, path)
    size = body.tell()
    if not decoder.eof:
        if size >= begin + claim + _SPARE:
            reason = f"is deflated, and holds more than the {human(claim)} of pixels that its header declares"
            raise ReadError(path, reason, "export the file again", code="damaged")
        reason = f"is truncated: its deflated data end after {size:,} bytes, inflated"
        raise ReadError(path, reason, "copy the file again", code="truncated")
    body.seek(0)
    dataset = pydicom.dcmread(body, stop_before_pixels=not pixels, specific_tags=tags, force=True)
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(_EXPLICIT)
    return dataset, size - body.tell()


def _inflate(decoder: Any, file: IO[bytes], body: io.BytesIO, limit: int, path: Path) -> None:
    """Inflates from `file` until `body` holds `limit` bytes or the stream ends."""
    try:
        while not decoder.eof and body.tell() < limit:
            pending = decoder.unconsumed_tail or file.read(_CHUNK)
            if not pending:
                return
            body.write(decoder.decompress(pending, min(_SPARE, limit - body.tell())))
    except zlib.error as error:
        raise ReadError(path, f"is deflated and damaged ({error})", "copy the file again", code="damaged") from error
