"""Indiana University chest X-rays (Open-i), in its three forms.

    native  NLMCXR_png/CXR1_1_IM-0001-3001.png, ecgen-radiology/*.xml: uId, AbstractText by label, MeSH, parentImage
    Kaggle  images/images_normalized/*.png, indiana_reports.csv, indiana_projections.csv
    R2Gen   images/CXR1_1_IM-0001/0.png, annotation.json with the split that report generation uses

One examination per patient: the id of the study is the id of the subject.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from xml.etree import ElementTree

from medssml.importers.account import Aside, LayoutError
from medssml.importers.study import Layout, Options, Studies, Study, radiograph, sections, view_of
from medssml.importers.tree import Tree
from medssml.readers.json_text import json_value

_ENTITY = re.compile(r"<!(DOCTYPE|ENTITY)", re.IGNORECASE)


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per report, whichever form the folder has; of two forms in one folder the richer is read."""
    reports = tree.tables("indiana_reports.csv")
    if reports:
        return _kaggle(tree, reports[0])
    xml = [path for path, _ in tree.matching(r"\.xml$")]
    if xml:
        return _native(tree, xml)
    annotations = [path for path, _ in tree.matching(r"(^|/)annotation\.json$")]
    if annotations:
        return _r2gen(tree, annotations[0])
    raise LayoutError(
        tree.root, "holds no report", "expected *.xml, indiana_reports.csv or annotation.json under this folder"
    )


# Native


def _native(tree: Tree, paths: list[str]) -> Iterable[Study]:
    pictures = _pictures(tree)
    used: set[str] = set()
    studies = Studies()
    for path in paths:
        root = _parsed(tree, path)
        uid = root.find("uId") if root is not None else None
        if root is None or uid is None or not uid.get("id"):
            tree.account.file(path, "no report of Open-i (no uId)")
            continue
        name = _id(str(uid.get("id")))
        if name in studies:
            tree.account.file(path, Aside(f"a second report {name}"))
            continue
        study = studies.of(name, name)
        _read_report(study, root)
        study.sources.append((path, "report_text"))
        for image in root.iter("parentImage"):
            own = str(image.get("id"))
            picture = pictures.get(own)
            if picture is None:
                if pictures:  # a collection without any picture is one of reports alone
                    tree.account.file(own, "no such image on disk", ("*.xml", 0), "xray")
                continue
            used.add(picture)
            caption = image.findtext("caption") or ""
            # "PA and lateral" is said of both pictures; the first of a pair is the frontal one.
            both = re.search(r"\b(and|views?)\b", caption, re.IGNORECASE)
            study.add("xray", radiograph(picture, "" if both else _plain_view(caption), name=own))
        if not study.report_text and not study.files:
            tree.account.file(path, Aside("neither findings nor impression, and no image on disk"))
    _say_missing(tree, studies, len(used))
    return studies.values()


def _pictures(tree: Tree) -> dict[str, str]:
    """Name without ending -> the picture of that name: PNG before JPEG before DICOM."""
    by_stem: dict[str, list[list[str]]] = {}
    for path, match in tree.matching(r"([^/]+)\.(png|jpe?g|dcm)$"):
        kind = {"png": 0, "dcm": 2}.get(match[2].lower(), 1)
        by_stem.setdefault(match[1], [[], [], []])[kind].append(path)
    found = {stem: next(filter(None, map(tree.one_of, kinds)), None) for stem, kinds in by_stem.items()}
    return {stem: path for stem, path in found.items() if path is not None}


def _parsed(tree: Tree, path: str) -> ElementTree.Element | None:
    """The document, or None where it is no XML; one that declares entities is not expanded but refused."""
    text = tree.text(path)
    if _ENTITY.search(text[:4096]):
        return None
    try:
        return ElementTree.fromstring(text.encode("utf-8", "surrogatepass"))
    except (ElementTree.ParseError, UnicodeEncodeError, ValueError):
        return None


def _id(text: str) -> str:
    """CXR4 as the native files, 4 as the Kaggle table, CXR4_IM-2050 as R2Gen writes it: CXR4."""
    match = re.match(r"(?:CXR)?(\d+)", text.strip(), re.IGNORECASE)
    return f"CXR{int(match.group(1))}" if match else text.strip()


def _read_report(study: Study, root: ElementTree.Element) -> None:
    parts = {str(part.get("Label")).lower(): "".join(part.itertext()).strip() for part in root.iter("AbstractText")}
    study.report_text = _sections(parts)
    terms = [term.text.strip() for term in root.iter("major") if term.text]
    _add_mesh(study, terms)


def _sections(parts: dict[str, str]) -> str:
    """The report, "" where it has neither findings nor impression."""
    if not parts.get("findings") and not parts.get("impression"):
        return ""
    names = ("comparison", "indication", "findings", "impression")
    return sections(**{name: parts.get(name, "") for name in names})


def _add_mesh(study: Study, terms: list[str]) -> None:
    """`mesh`, and `label_normal`: 1 where "normal" is all that was indexed; "" where nothing was."""
    lower = [term.lower() for term in terms]
    if terms:
        study.columns["mesh"] = ";".join(terms)
    if terms and "no indexing" not in lower:
        study.columns["label_normal"] = str(int(lower == ["normal"]))


def _plain_view(caption: str) -> str:
    view = view_of(caption)
    return view if view in ("PA", "AP", "lateral", "frontal") else ""


def _say_missing(tree: Tree, studies: Studies, pictures: int) -> None:
    if studies and not pictures:
        tree.account.note("no image of these reports is on disk: the studies have a report alone")


# Kaggle


def _kaggle(tree: Tree, table: str) -> Iterable[Study]:
    studies = Studies()
    for row in tree.rows(table, ("uid", "findings", "impression")):
        name = _id(row["uid"])
        if name in studies:
            tree.account.leave_out(row.id, Aside(f"a second report {name}"), study_id=name)
            continue
        study = studies.of(name, name)
        study.report_text = _sections(dict(row.items()))
        study.rows.append((row.id, "report_text" if study.report_text else "mesh"))
        _add_mesh(study, [term.strip() for term in row["MeSH"].split(";") if term.strip()])
    for projections in tree.tables("indiana_projections.csv")[:1]:
        for row in tree.rows(projections, ("uid", "filename", "projection")):
            path = tree.find(row["filename"])
            if _id(row["uid"]) not in studies:
                tree.account.leave_out(row.id, Aside("no report of this uid"))
            elif path is None:
                tree.account.leave_out(row.id, "no such image on disk", row["filename"], _id(row["uid"]))
            else:
                studies[_id(row["uid"])].add("xray", radiograph(path, view_of(row["projection"]), row.id))
    _say_missing(tree, studies, sum(len(study.files) for study in studies.values()))
    return studies.values()


# R2Gen


def _r2gen(tree: Tree, path: str) -> Iterable[Study]:
    studies = Studies()
    try:
        parts = json_value(tree.text(path))
        entries: list[tuple[str, dict[str, Any]]] = [(name, entry) for name in parts for entry in parts[name]]
    except (ValueError, TypeError) as error:
        raise LayoutError(tree.root / path, f"is no annotation ({error})", "download it again") from error
    for number, (split, entry) in enumerate(entries, start=1):
        id = tree.account.row(path, number)
        name = str(entry.get("id", ""))
        if not name or name in studies:
            tree.account.leave_out(id, Aside(f"a second report {name}") if name else "no id", study_id=name)
            continue
        # The subject is the number before the name of the picture: CXR2384_IM-0942 is patient CXR2384.
        study = studies.of(_id(name), name)
        study.split = str(entry.get("split") or split)
        study.report_text = str(entry.get("report") or "").strip()
        study.rows.append((id, "report_text"))
        for place, image in enumerate(entry.get("image_path") or []):
            found = tree.find(str(image))
            if found is not None:
                study.add("xray", radiograph(found, name=str(place)))
            else:
                tree.account.file(str(image), "no such image on disk", (path, number), "xray")
    _say_missing(tree, studies, sum(len(study.files) for study in studies.values()))
    return studies.values()


LAYOUTS = (
    Layout(
        "openi",
        "IU X-Ray (Open-i)",
        "ecgen-radiology/*.xml and NLMCXR_png/*.png, or indiana_reports.csv and indiana_projections.csv, or annotation.json",
        read,
        (".png", ".jpg", ".dcm", ".xml", ".json"),
        ("iu-xray", "iu"),
    ),
)
