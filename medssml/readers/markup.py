"""The text of a report in markup: RTF, HTML, and the XML of the Indiana University collection (OpenI).

Small on purpose: characters and line ends are kept, everything else (fonts, pictures, headers with names) is dropped.
RTF: Microsoft, Rich Text Format Specification 1.9.1.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from medssml.readers.errors import ReadError

MAX_TAGS = 100_000
_RTF = re.compile(
    r"\\'(?P<hex>[0-9a-fA-F]{2})|\\u(?P<unicode>-?[0-9]{1,6}) ?|\\(?P<word>[a-zA-Z]{1,32})(?P<number>-?[0-9]{1,10})? ?"
    r"|\\(?P<symbol>[^a-zA-Z])|(?P<brace>[{}])|(?P<end>[\r\n]+)|(?P<text>[^\\{}\r\n]+)",
    re.DOTALL,
)
_RTF_BREAKS = {"par": "\n", "line": "\n", "sect": "\n", "page": "\n", "row": "\n", "tab": "\t", "cell": "\t"}
_RTF_SYMBOLS = {"emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”"}
_RTF_SYMBOLS |= {"bullet": "•"}
_RTF_LEFT_OUT = frozenset(
    "fonttbl colortbl stylesheet info pict object header headerf headerl headerr footer footerf footerl footerr "
    "footnote themedata datastore listtable listoverridetable rsidtbl generator xmlnstbl fldinst".split()
)
_HTML_BREAKS = frozenset("p div br tr li table h1 h2 h3 h4 h5 h6 section".split())
_HTML_LEFT_OUT = frozenset("head script style title template".split())


class _Group(NamedTuple):
    """What a brace of RTF opens. skip: its text is none of the document's. width: characters that follow a `\\u`."""

    skip: bool
    width: int


def rtf_text(source: str) -> str:
    """The text of an RTF document, given with one character per byte (Latin-1)."""
    match = re.search(r"\\ansicpg([0-9]{3,5})", source[:2000])
    page = f"cp{match.group(1)}" if match else ("mac_roman" if "\\mac" in source[:200] else "cp1252")
    out: list[str] = []
    pending = bytearray()
    groups = [_Group(False, 1)]
    skip_next = 0
    for token in _RTF.finditer(source):
        group = groups[-1]
        if token["hex"] is None and pending:
            out.append(_bytes_text(pending, page))
            pending.clear()
        if token["brace"] == "{":
            groups.append(group)
        elif token["brace"] == "}":
            groups[max(1, len(groups) - 1) :] = []
            skip_next = 0
        elif token["word"] is not None or token["symbol"] == "*":
            groups[-1] = _rtf_word(token, group, out)
        elif group.skip or token["end"] is not None:
            continue
        elif token["unicode"] is not None:
            out.append(_code_unit(int(token["unicode"])))
            skip_next = group.width
        elif token["hex"] is not None:
            if skip_next:
                skip_next -= 1
            else:
                pending.append(int(token["hex"], 16))
        elif token["symbol"] is not None:
            out.append({"~": "\u00a0", "_": "-", "-": "", "\n": "\n", "\r": "\n"}.get(token["symbol"], token["symbol"]))
        else:
            cut = min(skip_next, len(token["text"]))
            skip_next -= cut
            out.append(token["text"][cut:])
    out.append(_bytes_text(pending, page))
    return "".join(out).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _rtf_word(token: re.Match[str], group: _Group, out: list[str]) -> _Group:
    """Writes what a control word stands for; returns the group as it is after it."""
    word = token["word"]
    if word is None or word in _RTF_LEFT_OUT:
        return group._replace(skip=True)
    if word == "uc" and token["number"]:
        return group._replace(width=max(0, min(8, int(token["number"]))))
    if not group.skip:
        out.append(_RTF_BREAKS.get(word) or _RTF_SYMBOLS.get(word, ""))
    return group


def _code_unit(number: int) -> str:
    """A UTF-16 code unit; RTF writes those above 32767 as negative numbers."""
    return chr(number & 0xFFFF)


def _bytes_text(data: bytearray, page: str) -> str:
    try:
        return data.decode(page, errors="replace")
    except LookupError:
        return data.decode("cp1252", errors="replace")


class _HTMLText(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.hidden = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden += tag in _HTML_LEFT_OUT
        self.parts.append("\n" if tag in _HTML_BREAKS else "\t" if tag in ("td", "th") else "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.parts.append("\n" if tag in _HTML_BREAKS else "")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = max(0, self.hidden - (tag in _HTML_LEFT_OUT))
        self.parts.append("\n" if tag in _HTML_BREAKS else "")

    def handle_data(self, data: str) -> None:
        if not self.hidden:
            self.parts.append(re.sub(r"\s+", " ", data))


def html_text(source: str) -> str:
    """The text of an HTML document or fragment, block elements on lines of their own."""
    parser = _HTMLText()
    parser.feed(source)
    parser.close()
    return "".join(parser.parts)


def xml_text(source: str, path: Path) -> str:
    """The report in an OpenI file: `AbstractText` elements under their labels; the rest of the file is dropped.

    Raises:
        ReadError: no XML, a DOCTYPE or entity (which could name other files or expand without end), another layout.
    """
    if re.search(r"<!(?:DOCTYPE|ENTITY)", source, re.IGNORECASE):
        reason = "declares a DOCTYPE or an entity, which is not followed"
        raise ReadError(path, reason, "remove the declaration, or export the report as .txt", code="format")
    tags = source.count("<")
    if tags > MAX_TAGS:
        raise ReadError(path, f"has {tags:,} tags, limit {MAX_TAGS:,}", "name the file of one report", code="too_large")
    try:
        root = ElementTree.fromstring(re.sub(r"^\s*<\?xml[^>]*\?>", "", source, count=1).strip())
    except ElementTree.ParseError as error:
        raise ReadError(path, f"is not well-formed XML ({error})", "export the report again", code="damaged") from error
    abstracts = [node for node in root.iter() if _local(node) == "Abstract"]
    if len(abstracts) > 1:
        raise ReadError(path, f"holds {len(abstracts)} reports", "keep one report a file", code="mixed")
    parts = [node for node in root.iter() if _local(node) == "AbstractText"]
    if not parts:
        reason = f"is XML of another layout (root element {_local(root)[:40]!r}, no AbstractText)"
        raise ReadError(path, reason, "export the report as .txt, RTF or FHIR", code="format")
    return "\n".join(filter(None, (_section(node) for node in parts)))


def _section(node: ElementTree.Element) -> str:
    body = " ".join("".join(node.itertext()).split())
    label = " ".join(str(node.get("Label", "")).split())
    return f"{label}: {body}" if label and body else body


def _local(node: ElementTree.Element) -> str:
    return str(node.tag).rpartition("}")[2]
