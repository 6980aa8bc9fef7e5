"""Encodings: one wrong byte costs one letter, and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml.readers.encodings import decode
from medssml.readers.errors import Flag

TEXT = (
    "BEFUND: Herzgröße normal. Kein Pleuraerguß. Ödem möglich. Übrige Lunge unauffällig. Zwerchfellkuppen schön glatt."
)
BYTES = TEXT.encode()


@pytest.mark.parametrize(
    ("data", "text", "says"),
    [
        (BYTES[: BYTES.rindex(b"\xc3") + 1], TEXT[: TEXT.rindex("ö")], "last letter is cut in half"),
        ("…".join(TEXT).encode()[:-1] + "…".encode()[:-1], "…".join(TEXT)[:-1], "cut in half"),
        (BYTES + b" \x96 Ende.", TEXT + " – Ende.", "1 places, beside"),
        (BYTES[:40] + b"\xff" + BYTES[40:], TEXT[:38] + "\ufffd" + TEXT[38:], "1 letters are lost"),
        (BYTES + TEXT.encode("latin-1"), TEXT * 2, "8 places"),
        (TEXT.encode("latin-1") + "±".encode(), TEXT + "±", "8 places"),
        (b"Herzgr\xc3 normal. " + BYTES, "Herzgr\ufffd normal. " + TEXT, "1 letters are lost"),
        ("Größe".encode() + b" caf\xe9", "Größe café", "1 places"),
        (b"\xef\xbb\xbf" + BYTES + b"\x96", TEXT + "–", "1 places"),
        (b"Lungs are clear, sch\xc3", "Lungs are clear, sch", "cut in half"),
        (b"\xff\xfe" + TEXT.encode("utf-16-le")[:-1], TEXT[:-1], "cut within the last character"),
    ],
)  # fmt: skip
def test_the_least_is_lost_and_it_is_flagged(data: bytes, text: str, says: str) -> None:
    read, notes = decode(data, Path("a.txt"))
    assert read == text
    assert any(says in note and isinstance(note, Flag) for note in notes)


def test_what_can_be_put_right_is_no_flag() -> None:
    assert decode(BYTES + b"\0" * 9, Path("a")) == (TEXT, ["zero bytes at the end removed"])
    twice = BYTES.decode("cp1252") + " → Á"
    text, notes = decode(twice.encode(), Path("a"))
    assert text == TEXT + " → Á" and "pairs of characters turned back" in notes[0] and isinstance(notes[0], Flag)
    assert decode("ÁÉ".encode().decode("latin-1").encode(), Path("a"))[0] == "ÁÉ"
    assert decode("São NÃO".encode(), Path("a")) == ("São NÃO", [])


@pytest.mark.parametrize("code", ["latin-1", "mac_roman", "cp850"])
def test_a_byte_code_is_still_told(code: str) -> None:
    text, notes = decode(TEXT.encode(code), Path("a"))
    assert text == TEXT and len(notes) == 1 and not isinstance(notes[0], Flag)
    assert decode("“Ödem” größer".encode("mac_roman"), Path("a"))[0] == "“Ödem” größer"
