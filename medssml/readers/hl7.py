"""The text of a report in HL7 version 2 messages (ORU, MDM; batches): the observations that hold and are text, and nothing else.

A message is segments of fields; the separators stand in its header. What no segment begins belongs to the field before, so a
text may have lines. Standard: HL7 2.5 chapters 2 (grammar, escapes, batches), 7 (OBR, OBX), 9 (TXA).
"""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from medssml.readers.errors import Flag, ReadError
from medssml.readers.forms import Form, form_of, one_text
from medssml.readers.headings import heading_of, strong_section

_START = re.compile(r"[\s\x0b\x1c]*(?:MSH|FHS|BHS)[^\w\s]")
_LATER = re.compile(r"(?<!\w)(?:MSH|FHS|BHS)([^\w\s])[^\w\s]{3,5}\1")
_FRAGMENT = re.compile(r"\s*(?:PID|PV1|EVN|ORC|OBR|OBX|TXA)\|[^\r\n]*\|")
_HEADER = re.compile(r"[ \t]*(?:MSH|FHS|BHS)([^\w\s])([^\w\s]*)")
_MOST_FIELDS = 26
_LINE_END = re.compile(r"\r\n|[\r\n\x0b\x1c]")
#: Messages that carry a report, by the first part of MSH-9.
_REPORTS = ("ORU", "MDM", "ORF", "OUL", "")
_TEXT = ("TX", "FT", "ST", "")
#: OBX-11: deleted, wrong, no result, not asked. MDM: the document was cancelled.
_WITHDRAWN = frozenset("DWXN")
_RANK = {"C": 2, "P": 0, "R": 0, "S": 0, "I": 0}
_CANCELLED_EVENT = "T11"
_CANCELLED_DOCUMENT = frozenset({"CA", "OB"})
#: OBX-3: suffixes of HL7 2.5, 7.1.4, and LOINC codes of the parts of a report.
_PARTS = {"GDT": "FINDINGS", "IMP": "IMPRESSION", "REC": "RECOMMENDATION", "ADT": "ADDENDUM"}
_PARTS |= {"59776-5": "FINDINGS", "19005-8": "IMPRESSION", "18785-6": "INDICATION", "18834-2": "COMPARISON"}
_PARTS |= {"55111-9": "TECHNIQUE"}
_MIME = {"RTF": "text/rtf", "HTML": "text/html", "XHTML": "text/html", "PLAIN": "text/plain", "TEXT": "text/plain"}
_MIME |= {"TXT": "text/plain", "MARKDOWN": "text/markdown"}


class Marks(NamedTuple):
    """The separators that a header states. escape: "" where there is none."""

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    part: str = "&"


class _Line(NamedTuple):
    """A text observation. heading: of the part of the report that OBX-3 names. key: what a correction shares with it."""

    heading: str
    key: tuple[str, str, str]
    status: str
    text: str


@dataclass
class _Report:
    """What was observed for one order of one patient. forms: of encapsulated text. lost: type -> observations without text."""

    withdrawn: int = 0
    cancelled: bool = False
    lines: list[_Line] = field(default_factory=list)
    forms: list[Form] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    comments: int = 0


def is_hl7(text: str) -> bool:
    """Whether `text` holds HL7 version 2 messages: it starts with a header, or has one later, after what a log wrote."""
    return bool(_START.match(text) or _LATER.search(text) or _FRAGMENT.match(text))


def hl7_text(text: str, path: Path) -> tuple[str, list[str]]:
    """The text of the one report in the messages, and what was left out; every other segment, the patient's above all, is
    dropped.

    Raises:
        ReadError: reports of several patients, orders or messages; no text; withdrawn; a message without its header.
    """
    start = _LATER.search(text)
    before = text[: start.start()].strip() if start and not _START.match(text) else ""
    reports, other = _reports(text[start.start() :] if start and before else text, path)
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    patients = set()
    for (_, patient, _), report in reports.items():
        if not report.cancelled and (read := _text_of(report))[0].strip():
            found.setdefault((patient, read[0]), read)
            patients.add(patient)
    if len(found) > 1:
        whose = f" of {len(patients)} patients" if len(patients) > 1 else ""
        fix = "write one report a file, or its text into the column report_text"
        raise ReadError(path, f"holds {len(found)} reports{whose}", fix, code="mixed")
    if not found:
        raise ReadError(
            path, _nothing(reports.values(), other), "export the text of the report as well", code="content"
        )
    body, notes = next(iter(found.values()))
    withdrawn = sum(report.withdrawn for report in reports.values() if not report.lines and not report.forms)
    withdrawn += sum(len(report.lines) for report in reports.values() if report.cancelled)
    if before:
        notes = [*notes, Flag(f"{len(before):,} letters before the message are left out", "left_out")]
    if withdrawn:
        notes = [*notes, Flag(f"{withdrawn} observations of a report that was withdrawn are left out", "left_out")]
    if other:
        kinds = ", ".join(f"{kind} x {count}" for kind, count in sorted(other.items()))
        notes = [*notes, Flag(f"messages that are no report are left out: {kinds}", "left_out")]
    return body, notes


def _nothing(known: Collection[_Report], other: Counter[str]) -> str:
    """Why no report is there."""
    withdrawn = sum(report.withdrawn + len(report.lines) * report.cancelled for report in known)
    lost = sum((report.lost for report in known), Counter[str]())
    if withdrawn:
        return f"holds a withdrawn report: {withdrawn} text observations are deleted, wrong or cancelled"
    if not known and other:
        return f"holds HL7 messages of {', '.join(sorted(other))}, no report"
    kinds = f": it has {', '.join(sorted(lost))}" if lost else ""
    return f"is an HL7 message without a text observation (OBX of type TX, FT or ST){kinds}"


def _reports(text: str, path: Path) -> tuple[dict[tuple[int, str, str], _Report], Counter[str]]:
    """((message, patient, order) -> report, type of other messages -> how many)."""
    reports: dict[tuple[int, str, str], _Report] = {}
    other: Counter[str] = Counter()
    message, patient, order, kind, cancelled = 0, "", "", "", False
    for name, cells, marks in _segments(text, path):
        if name == "MSH":
            message, patient, order = message + 1, "", ""
            kind, _, event = cells[8].strip().partition(marks.component)
            cancelled = event.split(marks.component)[0] == _CANCELLED_EVENT
            other[kind] += kind not in _REPORTS
        elif name == "PID":
            patient, order = (cells[3] or cells[2] or cells[5]).split(marks.repetition)[0].strip(), ""
        if kind not in _REPORTS:
            continue
        if name in ("OBR", "TXA"):
            stated = (cells[3] or cells[2], cells[4].split(marks.component)[0]) if name == "OBR" else (cells[12], "")
            order = repr(stated)
            cancelled_here = cells[25] == "X" if name == "OBR" else cells[19] in _CANCELLED_DOCUMENT
            if cancelled_here:
                reports.setdefault((message, patient, order), _Report()).cancelled = True
        elif name in ("OBX", "NTE"):
            report = reports.setdefault((message, patient, order), _Report())
            report.cancelled |= cancelled
            if name == "NTE":
                report.comments += bool(cells[3].strip())
            else:
                _observe(report, cells, marks, path)
    return reports, +other


def _segments(text: str, path: Path) -> Iterator[tuple[str, list[str], Marks]]:
    """(name, fields, separators) of every segment from the first header on."""
    rows: list[str] = []
    marks, begins = Marks(), _HEADER
    for line in _LINE_END.split(text):
        header = _HEADER.match(line)
        if header or (rows and begins.match(line)):
            if rows:
                yield _fields(rows, marks)
            rows = [line]
            if header:
                marks = Marks(header.group(1), *header.group(2).split(header.group(1))[0][:4])
                # Three capitals and a separator; a line of a text is none.
                begins = re.compile(rf"[ \t]*(?:(?!ADD)[A-Z][A-Z0-9]{{2}}{re.escape(marks.field)}|(?:BTS|FTS|DSC)\s*$)")
        elif rows and line.startswith(f"ADD{marks.field}"):
            rows[-1] += line[4:]  # goes on where the segment before was cut
        elif rows:
            rows.append(line)
    if not rows:
        reason = "is part of an HL7 message without its header (MSH)"
        raise ReadError(path, reason, "export the whole message", code="format")
    yield _fields(rows, marks)


def _fields(rows: list[str], marks: Marks) -> tuple[str, list[str], Marks]:
    """The segment in these lines, with empty fields at its end."""
    cells = "\n".join(rows).split(marks.field)
    return cells[0].strip(), [*cells, *[""] * (_MOST_FIELDS - len(cells))], marks


def _observe(report: _Report, cells: list[str], marks: Marks, path: Path) -> None:
    """Adds one OBX."""
    kind, status = cells[2].strip(), cells[11].strip()[:1].upper()
    if cells[5].strip() in ("", '""'):
        return
    if status in _WITHDRAWN:
        report.withdrawn += 1
    elif kind in _TEXT:
        text = "\n".join(unescaped(part, marks) for part in cells[5].split(marks.repetition))
        report.lines.append(_Line(_part_named(cells[3], marks), (cells[1], cells[3], cells[4]), status, text))
    elif kind == "ED" and (form := _encapsulated(cells[5], marks, path)) is not None:
        report.forms.append(form)
    else:
        report.lost[kind] += 1


def _part_named(identifier: str, marks: Marks) -> str:
    """The heading that OBX-3 stands for: 71020&IMP, 19005-8^^LN, RPT^IMPRESSION; "" where it says none."""
    codes = [component.split(marks.part) for component in identifier.split(marks.component)]
    for words in codes:
        for word in (words[-1].strip(), words[0].strip()):
            if word in _PARTS:
                return _PARTS[word]
    return next((section.upper() for words in codes if (section := strong_section(words[0]))), "")


def _encapsulated(value: str, marks: Marks, path: Path) -> Form | None:
    """The text of an ED: source, type, subtype, encoding, data; None where it is no text."""
    parts = [*value.split(marks.component, 4), *[""] * 5]
    encoding, data = parts[3].strip().upper(), unescaped(parts[4], marks)
    stated = (parts[2].strip() or parts[1].strip()).upper()
    mime = _MIME.get(stated, "application/octet-stream")
    try:
        if encoding == "BASE64":
            raw = base64.b64decode("".join(data.split()), validate=True)
        else:
            raw = bytes.fromhex(data) if encoding == "HEX" else data.encode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise ReadError(
            path, f"OBX of type ED is not {encoding} ({error})", "export it again", code="damaged"
        ) from error
    return form_of(raw, mime, path)


def _text_of(report: _Report) -> tuple[str, list[str]]:
    """The text of a report and what was left out of it."""
    lines, notes = _corrected(report.lines)
    rows: list[str] = []
    heading = ""
    for line in lines:
        if line.heading and line.heading != heading and line.text.strip():
            own = heading_of(line.text.split("\n", 1)[0])
            rows.append(f"{line.heading}: {line.text}" if own is None or not own.section else line.text)
            heading = line.heading
        else:
            rows.append(line.text)
    text = "\n".join(rows)
    own_form = (
        form_of(text.encode("utf-8"), "", Path("OBX"))
        if text.lstrip().lower().startswith(("{\\rtf", "<html"))
        else None
    )
    text, forms = one_text([own_form or Form(0, text), *report.forms])
    notes += forms
    if report.withdrawn:
        notes.append(Flag(f"{report.withdrawn} observations that were withdrawn (OBX-11) are left out", "left_out"))
    unread = [f"{kind} x {count}" for kind, count in sorted(report.lost.items())]
    unread += [f"comments (NTE) x {report.comments}"] if report.comments else []
    if unread:
        notes.append(Flag(f"left out beside the text: {', '.join(unread)}", "left_out"))
    early = sum(_RANK.get(line.status, 1) == 0 for line in lines)
    if early:
        notes.append(Flag(f"{early} of {len(lines)} observations are preliminary"))
    return text, notes


def _corrected(lines: list[_Line]) -> tuple[list[_Line], list[str]]:
    """The observations without those that another of the same number corrects, or makes final.

    Where numbers repeat (every line is number 1) nothing tells which is corrected: all stay.
    """
    places: dict[tuple[str, str, str], list[int]] = {}
    for place, line in enumerate(lines):
        if line.key[0].strip():
            places.setdefault(line.key, []).append(place)
    replaced: set[int] = set()
    unclear = 0
    for shared in places.values():
        ranks = [_RANK.get(lines[place].status, 1) for place in shared]
        if len(set(ranks)) > 1:
            if len(set(ranks)) == len(ranks):
                replaced |= {place for place, rank in zip(shared, ranks, strict=True) if rank < max(ranks)}
            else:
                unclear += len(shared)
    notes: list[str] = []
    if replaced:
        notes.append(Flag(f"{len(replaced)} of {len(lines)} observations are replaced by their correction", "left_out"))
    if unclear:
        notes.append(Flag(f"{unclear} observations of one number are corrections and what they correct: all are read"))
    return [line for place, line in enumerate(lines) if place not in replaced], notes


def unescaped(text: str, marks: Marks = Marks()) -> str:  # noqa: B008 - immutable
    """`text` with HL7 escapes as what they stand for: `\\.br\\`, `\\.sp2\\`, `\\T\\`, `\\X0A\\`; formatting becomes blanks."""
    if not marks.escape or marks.escape not in text:
        return text
    mark = re.escape(marks.escape)
    names = r"\.[A-Za-z]{2}[+-]?[0-9]{0,3}|[FSTRE]|H|N|P|X(?:[0-9A-Fa-f]{2}){1,64}|[CM][0-9A-Fa-f]{4,6}"
    return re.sub(rf"{mark}({names}){mark}", lambda match: _meaning(match.group(1), marks), text)


def _meaning(name: str, marks: Marks) -> str:
    plain = {"F": marks.field, "S": marks.component, "T": marks.part, "R": marks.repetition, "E": marks.escape}
    if name in plain:
        return plain[name]
    if name[0] == "X":
        return _characters(bytes.fromhex(name[1:]))
    if name[0] != ".":
        return ""  # highlighting, another character set
    command, count = name[1:3].lower(), int(name[3:] or 1)
    if command in ("br", "ce", "sp"):
        return "\n" * (max(1, min(count, 20)) if command == "sp" else 1)
    return " " * (max(1, min(count, 40)) if command in ("in", "ti", "sk") else 1)


def _characters(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
