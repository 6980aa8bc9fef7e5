"""MIMIC-CXR (DICOM, reports) and MIMIC-CXR-JPG, apart or in one folder.

    files/p10/p10000032/s50414267/<dicom_id>.jpg|.dcm     files/p10/p10000032/s50414267.txt
    mimic-cxr-2.0.0-{metadata,split,chexpert,negbio}.csv[.gz]   cxr-{record,study}-list.csv[.gz]   mimic_cxr_sectioned.csv

The tables keep the name 2.0.0 in release 2.1.0. Splits are by patient, listed by image.
"""

from __future__ import annotations

from collections.abc import Iterable

from medssml.importers.account import Aside, LayoutError
from medssml.importers.labels import add_ternary, but
from medssml.importers.study import Layout, Options, Studies, Study, radiograph, sections, view_of
from medssml.importers.tree import Row, Tree

_IMAGE = r"(?:^|/)p(\d+)/s(\d+)/([^/]+)\.(jpg|jpeg|png|dcm)$"
_REPORT = r"(?:^|/)p(\d+)/s(\d+)\.txt$"
_RELEASE = r"mimic[-_]cxr[-_]\d[\d.]*[-_]"
_RAW = "dcm"
#: Columns of the label tables that are no label.
_IDS = ("subject_id", "study_id", "dicom_id")


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per radiological examination; its best frontal view is `xray`."""
    images = _images_on_disk(tree)
    studies = Studies()
    metadata = tree.tables(_RELEASE + "metadata.csv")
    records = tree.tables("cxr-record-list.csv")
    if metadata or records:
        _listed(tree, studies, images, metadata[:1] or records[:1])
        if metadata and records:
            tree.account.note(f"{records[0]} repeats {metadata[0]}: not read")
    else:
        for dicom_id, (subject, study, path) in images.items():
            studies.of(subject, study).add("xray", radiograph(path, name=dicom_id))
    _add_reports(tree, studies)
    _add_labels(tree, studies, options)
    _add_splits(tree, studies)
    return studies.values()


def _images_on_disk(tree: Tree) -> dict[str, tuple[str, str, str]]:
    """dicom_id -> (subject, study, path); a JPEG before the DICOM file that it was made of."""
    groups: dict[str, list[tuple[str, str, str, str]]] = {}
    for path, match in tree.matching(_IMAGE):
        subject, study, dicom_id, ending = match.groups()
        groups.setdefault(dicom_id, []).append((subject, study, path, ending.lower()))
    found: dict[str, tuple[str, str, str]] = {}
    for dicom_id, files in groups.items():
        pictures = [path for _, _, path, ending in files if ending != _RAW]
        best = tree.one_of(pictures) or tree.one_of([path for _, _, path, ending in files if ending == _RAW])
        for subject, study, path, ending in files:
            if path == best:
                found[dicom_id] = (subject, study, path)
            elif best is not None and ending == _RAW:
                tree.account.file(path, Aside(f"{best} is the same image"))
    return found


def _listed(tree: Tree, studies: Studies, images: dict[str, tuple[str, str, str]], tables: list[str]) -> None:
    first: dict[str, int] = {}
    for row in tree.rows(tables[0], ("dicom_id", "subject_id", "study_id")):
        dicom_id = row["dicom_id"]
        study = studies.of(row["subject_id"], row["study_id"])
        if dicom_id in first:
            tree.account.leave_out(row.id, Aside(f"already in row {first[dicom_id]}"), study_id=study.study_id)
            continue
        first[dicom_id] = row.number
        if dicom_id not in images:
            tree.account.leave_out(row.id, "no such image on disk", study_id=study.study_id)
            continue
        view = view_of(row["ViewPosition"] or row["ViewCodeSequence_CodeMeaning"])
        study.add("xray", radiograph(images[dicom_id][2], view, row.id, dicom_id))
        if row["StudyDate"]:
            study.columns["study_date"] = row["StudyDate"]


def _add_reports(tree: Tree, studies: Studies) -> None:
    """The report of each study: its sections from the sectioned table where that is there, else the text file."""
    sectioned: dict[str, tuple[str, Row]] = {}
    for table in tree.tables(r"mimic[-_]cxr[-_]section(ed|s)\.csv")[:1]:
        for row in tree.rows(table, ("study", "impression", "findings")):
            text = sections(findings=row["findings"], impression=row["impression"])
            text = text or row["last_paragraph"] or row["comparison"]
            sectioned[row["study"].removeprefix("s")] = (text, row)
    for path, match in tree.matching(_REPORT):
        subject, study_id = match.groups()
        if sectioned.get(study_id, ("",))[0]:
            tree.account.file(path, Aside("its sections were taken from mimic_cxr_sectioned.csv"))
            studies.of(subject, study_id)
        else:
            studies.of(subject, study_id).report = path
    for study_id, (text, row) in sectioned.items():
        if study_id not in studies:
            continue
        if text:
            studies[study_id].report_text = text
            studies[study_id].rows.append((row.id, "report_text"))
        else:
            tree.account.leave_out(row.id, Aside("no section in it"), study_id=study_id)


def _add_labels(tree: Tree, studies: Studies, options: Options) -> None:
    """The labels of CheXpert, else those of NegBio."""
    tables = tree.tables(_RELEASE + "chexpert.csv") or tree.tables(_RELEASE + "negbio.csv")
    what = "MIMIC-CXR-JPG's labels mimic-cxr-2.0.0-chexpert.csv"
    for table in tree.wanted(what, tables[:1], "no study has a label"):
        for row in tree.rows(table, ("study_id",)):
            study = studies.get(row["study_id"])
            if study is None:
                continue
            try:
                add_ternary(study, but(row, *_IDS), options)
            except ValueError as error:
                tree.account.leave_out(row.id, str(error), study_id=study.study_id)
            else:
                study.rows.append((row.id, "labels"))


def _add_splits(tree: Tree, studies: Studies) -> None:
    what, without = "MIMIC-CXR-JPG's split mimic-cxr-2.0.0-split.csv", "the official split is not used"
    for table in tree.wanted(what, tree.tables(_RELEASE + "split.csv")[:1], without):
        for row in tree.rows(table, ("study_id", "subject_id", "split")):
            study = studies.get(row["study_id"])
            if study is None:
                continue
            if study.split and study.split != row["split"]:
                raise LayoutError(
                    tree.root / table, f"row {row.number}: study {study.study_id} is in two splits", "download it again"
                )
            study.split = row["split"]
            study.rows.append((row.id, "split"))


LAYOUTS = (
    Layout(
        "mimic-cxr",
        "MIMIC-CXR",
        "files/p10/p10000032/s50414267/*.jpg or *.dcm, and mimic-cxr-2.0.0-*.csv[.gz] or cxr-record-list.csv[.gz]",
        read,
        (".jpg", ".jpeg", ".png", ".dcm", ".txt"),
        ("mimic-cxr-jpg",),
    ),
)
