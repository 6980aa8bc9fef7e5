"""A text that came in several forms (plain, HTML, RTF), as bytes of a stated type, and which of the forms is read."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medssml.readers.encodings import decode
from medssml.readers.errors import Flag
from medssml.readers.markup import html_text, rtf_text

_PLAIN = frozenset({"", "text/plain", "text/markdown", "text/x-markdown", "application/markdown"})
_HTML = frozenset({"text/html", "application/xhtml+xml"})
_RTF = frozenset({"text/rtf", "application/rtf", "text/richtext", "application/x-rtf"})
#: Two texts that share so many of their words are two forms of one.
_SAME = 0.95
#: Less of the longer form in the shorter, and the shorter is an excerpt, or says "see attachment".
_EXCERPT = 0.5


class Form(NamedTuple):
    """rank: 0 plain, 1 HTML, 2 RTF: the least is read best."""

    rank: int
    text: str


def form_of(data: bytes, mime: str, path: Path) -> Form | None:
    """The text in `data`, None where it is of a type that holds none (PDF); `mime` may name its charset.

    Raises:
        ReadError: text in no encoding.
    """
    kind, _, rest = mime.lower().partition(";")
    kind, start = kind.strip(), data.lstrip()[:64].lower()
    if start.startswith(b"{\\rtf"):
        return Form(2, rtf_text(data.decode("latin-1")))
    if kind in _RTF or kind not in _PLAIN | _HTML or start.startswith((b"%pdf", b"pk\x03\x04")):
        return None
    charset = re.search(r"charset=\"?([\w-]+)", rest)
    text = _stated(data, charset.group(1)) if charset else None
    text = decode(data, path)[0] if text is None else text
    if kind in _HTML or start.startswith((b"<!doctype html", b"<html")):
        return Form(1, html_text(text))
    return Form(0, text)


def _stated(data: bytes, charset: str) -> str | None:
    try:
        return data.decode(charset)
    except (UnicodeError, LookupError):
        return None


def one_text(forms: Sequence[Form]) -> tuple[str, list[str]]:
    """The text of forms of one content, that which is read best; forms with words of their own one after the other.

    >>> one_text([Form(1, "Lungs are clear."), Form(0, "Lungs  are clear.")])[0]
    'Lungs  are clear.'
    """
    kept: list[str] = []
    notes: list[str] = []
    for form in sorted((form for form in forms if form.text.strip()), key=lambda form: form.rank):
        place = next((place for place, text in enumerate(kept) if _alike(text, form.text)), None)
        if place is None:
            kept.append(form.text)
            continue
        more, fewer = _words(form.text) - _words(kept[place]), _words(kept[place]) - _words(form.text)
        if more or fewer:
            what = f"{more.total():,} words more and {fewer.total():,} fewer"
            notes.append(
                Flag(
                    f"a second form of the text has {what}; of the two the better readable or longer is read",
                    "left_out",
                )
            )
        if _share(form.text, kept[place]) < _EXCERPT:
            kept[place] = form.text
    if len(kept) > 1:
        notes.append(Flag(f"{len(kept)} forms of the text say different things: all of them are read", "joined"))
    return "\n".join(kept), notes


def _alike(one: str, other: str) -> bool:
    return max(_share(one, other), _share(other, one)) >= _SAME


def _share(part: str, whole: str) -> float:
    """Share of the words of `part` that `whole` has as well."""
    words = _words(part)
    return (words & _words(whole)).total() / max(1, words.total())


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"\w+", text.lower()))
