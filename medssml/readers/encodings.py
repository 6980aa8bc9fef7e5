"""Bytes of a text of unknown encoding -> text: by its mark, by what it declares, else by which reading loses least."""

from __future__ import annotations

import codecs
import re
from pathlib import Path
from typing import NamedTuple

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
_TAIL = "\u0080-\u00bf€‚ƒ„…†‡ˆ‰Š‹ŒŽ‘’“”•–—˜™š›œžŸ"
_MOJIBAKE = re.compile(f"[ÃÂâ][{_TAIL}]")
#: One letter that was encoded twice: a lead byte and what goes on from it.
_RUN = re.compile(f"[Â-ß][{_TAIL}]|[à-ï][{_TAIL}]{{2}}|[ð-ô][{_TAIL}]{{3}}")
_CONTROLS = frozenset(map(chr, range(0x80, 0xA0)))
#: Bytes that are no UTF-8, as `surrogateescape` writes them: a letter that ends too early, or a byte of another code.
_WRONG = re.compile("[\udcc2-\udcf4][\udc80-\udcbf]+|[\udc80-\udcff]")
#: A letter that the end of the text cuts; a last byte alone may be a letter of Latin-1.
_CUT = re.compile("(?:[\udcc2\udcc3\udce2]|[\udce0-\udcf4][\udc80-\udcbf]{1,2})$")


def decode(data: bytes, path: Path) -> tuple[str, list[str]]:
    """Text of `data`, and what had to be guessed or put right.

    By its byte-order mark, else what an XML declaration names, else UTF-8, else UTF-16 without a mark, else whatever of UTF-8
    with some wrong bytes, Windows-1252, Mac Roman and DOS 850 makes most letters those of a European language.

    Raises:
        ReadError: no text.
    """
    data, notes = _unpadded(data)
    for mark, code, note in _MARKS:
        if data.startswith(mark):
            text, more = (_utf8 if code == "utf-8" else _marked)(data[len(mark) :], code, path)
            return text, [*notes, note, *more]
    if 0 in data:
        return _utf16(data, path), [*notes, "read as UTF-16 without a mark"]
    declared = _declared(data)
    if declared not in (None, "utf-8", "ascii"):
        return _strict(data, str(declared), path), [*notes, f"read as {declared}, as the file declares"]
    text, more = _utf8(data, "utf-8", path)
    return text, notes + more


def utf8_or_latin(data: bytes) -> str:
    """A cell of a table that is no UTF-8: with its wrong bytes one by one, or as Windows-1252, whichever loses less.

    >>> utf8_or_latin("größer".encode() + b" \\x96 x"), utf8_or_latin("größer".encode("latin-1"))
    ('größer – x', 'größer')
    """
    mixed, latin = _mixed_utf8(data), data.decode("cp1252", errors="replace")
    unlikely = sum(ord(letter) > 127 and letter not in _LIKELY for letter in latin)
    return mixed.text if (mixed.letters or mixed.cut) and mixed.lost < unlikely else latin


def _utf8(data: bytes, code: str, path: Path) -> tuple[str, list[str]]:
    try:
        return _mended(data.decode(code))
    except UnicodeDecodeError:
        return _least_loss(data, path)


def _unpadded(data: bytes) -> tuple[bytes, list[str]]:
    """Without the zero bytes that a database field of fixed length has at its end."""
    bare = data.rstrip(b"\0")
    return (bare, ["zero bytes at the end removed"]) if bare and 0 not in bare and bare != data else (data, [])


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


def _marked(data: bytes, code: str, path: Path) -> tuple[str, list[str]]:
    """UTF-16 or UTF-32 as its mark says; of one that is cut within a character, what is whole."""
    width = 4 if "32" in code else 2
    spare = len(data) % width
    if not spare or len(data) < 2 * width:
        return _strict(data, code, path), []
    return _strict(data[:-spare], code, path), [Flag("is cut within the last character, which is left out", "left_out")]


def _utf16(data: bytes, path: Path) -> str:
    zeros = data[0::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(zeros) > 0.3 * len(data) / 2 and min(zeros) == 0:
        return data.decode("utf-16-be" if zeros[0] > zeros[1] else "utf-16-le")
    raise ReadError(path, f"is not text ({sum(zeros):,} zero bytes)", "name the text file", code="format")


def _least_loss(data: bytes, path: Path) -> tuple[str, list[str]]:
    """UTF-8 with its wrong bytes read one by one, or a byte code: the one with the largest share of likely letters."""
    controls = sum(byte < 32 and byte not in b"\t\n\r\f\x0b\x1b\x1c" for byte in data)
    if controls > 0.01 * len(data):
        raise ReadError(path, f"is not text ({controls:,} control bytes)", "name the text file", code="format")
    best, share, text, unlikely = "cp1252", -1.0, "", 0
    for code in _BYTE_CODES:
        candidate = data.decode(code, errors="replace")
        foreign = [letter for letter in candidate if ord(letter) > 127]
        likely = sum(letter in _LIKELY for letter in foreign)
        if likely / len(foreign) > share + 0.1:  # Windows-1252 unless another is clearly better
            best, share, text, unlikely = code, likely / len(foreign), candidate, len(foreign) - likely
    mixed = _mixed_utf8(data)
    if (mixed.letters or mixed.cut) and mixed.lost < unlikely:
        return _said(mixed)
    note = f"not UTF-8: read as {_BYTE_CODES[best]}"
    if share < 0.5:
        return text, [Flag(f"{note}, which leaves {1 - share:.0%} of the special characters unlikely", "reread")]
    return text, [note]


class _Mixed(NamedTuple):
    """UTF-8 with wrong bytes. letters: those beyond ASCII that are UTF-8. wrong: places that are not. lost: of them, those that
    are no likely letter in Windows-1252 and become U+FFFD. cut: the text ends within a letter, which is left out."""

    text: str
    letters: int
    wrong: int
    lost: int
    cut: bool


def _mixed_utf8(data: bytes) -> _Mixed:
    text = data.decode("utf-8", errors="surrogateescape")
    cut = _CUT.search(text)
    text = text[: cut.start()] if cut else text
    letters = sum(ord(letter) > 127 for letter in text)
    wrong = lost = 0

    def likely(match: re.Match[str]) -> str:
        nonlocal wrong, lost
        wrong += 1
        letter = match.group().encode("utf-8", "surrogateescape").decode("cp1252", errors="replace")
        lost += letter not in _LIKELY
        return letter if letter in _LIKELY else "\ufffd"

    escaped = sum("\udc80" <= letter <= "\udcff" for letter in text)
    return _Mixed(_WRONG.sub(likely, text), letters - escaped, wrong + bool(cut), lost, cut is not None)


def _said(mixed: _Mixed) -> tuple[str, list[str]]:
    text, notes = _mended(mixed.text)
    what = f"UTF-8 but for {mixed.wrong:,} places, beside {mixed.letters:,} letters that are right"
    if mixed.lost:
        what += f"; {mixed.lost:,} letters are lost"
    if mixed.cut:
        what += "; the last letter is cut in half and left out"
    return text, [Flag(what, "reread"), *notes]


def _mended(text: str) -> tuple[str, list[str]]:
    """UTF-8 that was taken for Windows-1252 and encoded again ("FÃ¼r") is turned back, piece by piece."""
    found = len(_MOJIBAKE.findall(text))
    if not found:
        return text, []
    turned = 0

    def back(match: re.Match[str]) -> str:
        nonlocal turned
        try:
            plain = _as_bytes(match.group()).decode("utf-8")
        except UnicodeError:
            return match.group()
        turned += 1
        return plain

    mended = _RUN.sub(back, text)
    left = len(_MOJIBAKE.findall(mended))
    if left:
        return mended, [Flag(f"{left} of {found} pairs of characters look like text encoded twice; left as they are")]
    return mended, [Flag(f"was encoded twice as UTF-8: {found} pairs of characters turned back", "reread")]


def _as_bytes(text: str) -> bytes:
    """Windows-1252, or Latin-1 for what that does not have."""
    return b"".join(bytes([ord(letter)]) if letter in _CONTROLS else letter.encode("cp1252") for letter in text)
