"""Bytes of a text of unknown encoding -> text: by its mark, by what it declares, else by which reading makes words."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

from medssml.readers.errors import Flag, ReadError

_MARKS = (  # UTF-32 first: its mark begins like that of UTF-16
    (codecs.BOM_UTF8, "utf-8", "byte-order mark removed"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "read as UTF-32"),
    (codecs.BOM_UTF32_BE, "utf-32-be", "read as UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "read as UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "read as UTF-16"),
)
_BYTE_CODES = {
    "cp1252": "Latin-1 (Windows-1252)",
    "mac_roman": "Mac Roman",
    "cp850": "DOS code page 850",
}
_LIKELY = frozenset("äöüßÄÖÜáéíóúñÁÉÍÓÚÑçàèìòùâêîôûåøæÇÅØÆ°µ²³–—’‘“”„…•ºª¿¡«»±×½\u00a0")
_DECLARED = re.compile(rb"^\s*<\?xml[^>]{0,80}?encoding\s*=\s*[\"']([A-Za-z0-9._-]{1,40})[\"']")
_MOJIBAKE = re.compile("[ÃÂâ][\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ]")


def decode(data: bytes, path: Path) -> tuple[str, list[str]]:
    """Text of `data`, and what had to be guessed or put right.

    By its byte-order mark, else what an XML declaration names, else UTF-8, else UTF-16 without a mark, else the one of
    Windows-1252, Mac Roman and DOS 850 under which most letters are those of a European language.

    Raises:
        ReadError: no text.
    """
    for mark, code, note in _MARKS:
        if data.startswith(mark):
            return _strict(data[len(mark) :], code, path), [note]
    if 0 in data:
        return _utf16(data, path), ["read as UTF-16 without a mark"]
    declared = _declared(data)
    if declared not in (None, "utf-8"):
        return _strict(data, str(declared), path), [f"read as {declared}, as the file declares"]
    try:
        return _mended(data.decode("utf-8"))
    except UnicodeDecodeError:
        return _byte_code(data, path)


def _declared(data: bytes) -> str | None:
    """The text encoding that an XML declaration names, None where there is none or Python does not know it."""
    match = _DECLARED.match(data)
    if match is None:
        return None
    try:
        code = codecs.lookup(match.group(1).decode())
    except LookupError:
        return None
    return code.name if getattr(code, "_is_text_encoding", False) and "16" not in code.name else None


def _strict(data: bytes, code: str, path: Path) -> str:
    try:
        return data.decode(code)
    except UnicodeError as error:
        reason = f"cannot be decoded as {code}, which it declares ({error.__class__.__name__})"
        raise ReadError(path, reason, "save the text again as UTF-8", code="damaged") from error


def _utf16(data: bytes, path: Path) -> str:
    zeros = data[0::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(zeros) > 0.3 * len(data) / 2 and min(zeros) == 0:
        return data.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
    raise ReadError(path, f"is not text ({sum(zeros):,} zero bytes)", "name the text file", code="format")


def _byte_code(data: bytes, path: Path) -> tuple[str, list[str]]:
    controls = sum(byte < 32 and byte not in b"\t\n\r\f" for byte in data)
    if controls > 0.01 * len(data):
        raise ReadError(path, f"is not text ({controls:,} control bytes)", "name the text file", code="format")
    best, share, text = "cp1252", -1.0, ""
    for code in _BYTE_CODES:
        candidate = data.decode(code, errors="replace")
        foreign = [letter for letter in candidate if ord(letter) > 127]
        likely = sum(letter in _LIKELY for letter in foreign) / len(foreign)
        if likely > share + 0.1:  # Windows-1252 unless another is clearly better
            best, share, text = code, likely, candidate
    note = f"not UTF-8: read as {_BYTE_CODES[best]}"
    if share < 0.5:
        return text, [Flag(f"{note}, which leaves {1 - share:.0%} of the special characters unlikely", "reread")]
    return text, [note]


def _mended(text: str) -> tuple[str, list[str]]:
    """UTF-8 that was taken for Windows-1252 and encoded again ("FÃ¼r") is turned back, where all of it can be."""
    found = len(_MOJIBAKE.findall(text))
    if not found:
        return text, []
    try:
        mended = text.encode("cp1252").decode("utf-8")
    except UnicodeError:
        return text, [Flag(f"{found} pairs of characters look like text encoded twice; left as they are")]
    return mended, [Flag(f"was encoded twice as UTF-8: {found} characters turned back", "reread")]
