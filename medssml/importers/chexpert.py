"""CheXpert 1.0, whole or small, and CheXpert Plus, which adds reports.

    CheXpert       CheXpert-v1.0[-small]/{train,valid,test}/patient00001/study1/view1_frontal.jpg; train.csv, valid.csv, test.csv
    CheXpert Plus  df_chexpert_plus_240401.csv; PNG/PNG/train/patient00001/study1/view1_frontal.png, or the DICOM files;
                   chexbert_labels/*.json, one object per line

`Path` carries the name of the release folder. The archives of today unpack into a folder each, "CheXpert-v1.0 batch 2 (train 1)",
which holds the patients and has no folder train: a picture is known by patient, study and view. -1 is uncertain, blank is not
mentioned, age 0 is unknown. The tables of CheXpert Plus name .jpg where the archive holds .png.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medssml.importers.account import LayoutError
from medssml.importers.labels import add_ternary, but
from medssml.importers.study import Layout, Options, Studies, Study, radiograph, sections, view_of
from medssml.importers.tree import Row, Tree
from medssml.readers.json_text import json_value

_PATH = re.compile(r"(train|valid|test)/(patient\d+)/(study\d+)/([^/]+)$")
_NO_LABEL = ("Path", "Sex", "Age", "Frontal/Lateral", "AP/PA")
_SEX = {"male": "M", "female": "F", "m": "M", "f": "F"}
_PICTURES = (".png", ".jpg", ".dcm")
#: patient00001/study1/view1_frontal.jpg: so many names at the end say which picture it is.
_NAMES = 3


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per examination of a patient; the table that names it is its split."""
    studies = Studies()
    tables = []
    for name in ("train", "valid", "test"):
        own = tree.tables(rf"{name}\.csv") or tree.tables(rf"{name}_(labels|chexbert|visualchexbert|groundtruth)\.csv")
        without = "its studies are not imported" if name != "test" else "there is no official test part"
        tables += tree.wanted(f"CheXpert's table {name}.csv", own[:1], without)
    if not tables:
        raise LayoutError(tree.root, "holds no train.csv, valid.csv or test.csv", "give the folder of CheXpert")
    for table in tables:
        for row in tree.rows(table, ("Path",)):
            _add(tree, studies, row, options)
    return studies.values()


def _add(tree: Tree, studies: Studies, row: Row, options: Options) -> None:
    study = _study_of(tree, studies, row, row["Path"])
    if study is None:
        return
    _add_picture(tree, study, row, row["Path"], row["AP/PA"] or row["Frontal/Lateral"])
    _add_person(study, row["Sex"], row["Age"])
    try:
        add_ternary(study, but(row, *_NO_LABEL), options)
    except ValueError as error:
        tree.account.leave_out(row.id, str(error), study_id=study.study_id)


def _study_of(tree: Tree, studies: Studies, row: Row, path: str) -> Study | None:
    """The study that a path belongs to, patient64541_study1; None, accounted for, where the path is of another form."""
    match = _PATH.search(path)
    if match is None:
        tree.account.leave_out(row.id, "the path is not SPLIT/patientN/studyN/VIEW", path)
        return None
    split, patient, number, _ = match.groups()
    study = studies.of(patient, f"{patient}_{number}")
    study.split = study.split or split
    return study


def _add_picture(tree: Tree, study: Study, row: Row, path: str, view: str) -> None:
    found = _picture(tree, path)
    if found is None:
        tree.account.leave_out(row.id, "no such image on disk", path, study.study_id)
    else:
        study.add("xray", radiograph(found, view_of(view), row.id))


def _picture(tree: Tree, path: str) -> str | None:
    """The picture of this patient, study and view, whatever the folders above and its ending are."""
    stem = path.rpartition(".")[0] or path
    return next((file for file in (tree.find(stem + ending, _NAMES) for ending in _PICTURES) if file), None)


def _add_person(study: Study, sex: str, age: str) -> None:
    if sex.lower() in _SEX:
        study.columns["group_sex"] = _SEX[sex.lower()]
    if age and float(age) > 0:
        study.columns["age"] = f"{float(age):g}"


# CheXpert Plus


def read_plus(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per examination, with its report; labels are those of CheXbert on the impression, else on the report."""
    tables = tree.tables(r"df_chexpert_plus_\d+\.csv")
    if not tables:
        raise LayoutError(tree.root, "holds no df_chexpert_plus_*.csv", "give the folder of CheXpert Plus")
    studies = Studies()
    for row in tree.rows(tables[0], ("path_to_image",)):
        path = row["path_to_image"]
        study = _study_of(tree, studies, row, path)
        if study is None:
            continue
        _add_plus_picture(tree, study, row, tables[0])
        _add_person(study, row["sex"], row["age"])
        study.split = row["split"] or study.split
        study.report_text = study.report_text or _report(row)
        if row["race"]:
            study.columns["group_race"] = row["race"]
        if study.report_text and all(file.row != row.id for file in study.files.get("xray", [])):
            study.rows.append((row.id, "report_text"))
    _add_plus_labels(tree, studies, options)
    return studies.values()


def _add_plus_picture(tree: Tree, study: Study, row: Row, table: str) -> None:
    """The image of a row; without it the row may still give the report, so that it is not left out here."""
    for path in filter(None, (row["path_to_image"], row["path_to_dcm"])):
        found = _picture(tree, path)
        if found is not None:
            view = row["ap_pa"] if row["frontal_lateral"].lower() != "lateral" else "lateral"
            study.add("xray", radiograph(found, view_of(view or row["frontal_lateral"]), row.id))
            return
    if _report(row):
        tree.account.file(row["path_to_image"], "no such image on disk", (table, row.number), "xray")
    else:
        tree.account.leave_out(row.id, "no such image on disk", row["path_to_image"], study.study_id)


def _report(row: Row) -> str:
    """The sections that CheXpert Plus has cut out, else the whole report."""
    if row["section_findings"] or row["section_impression"]:
        return sections(
            indication=row["section_clinical_history"] or row["section_history"],
            technique=row["section_technique"],
            comparison=row["section_comparison"],
            findings=row["section_findings"],
            impression=row["section_impression"],
        )
    return row["report"]


def _add_plus_labels(tree: Tree, studies: Studies, options: Options) -> None:
    files = {path.rpartition("/")[2]: path for path, _ in tree.matching(r"chexbert_labels/[^/]+\.json$")}
    own = [files[name] for name in ("impression_fixed.json", "report_fixed.json") if name in files]
    for path in tree.wanted("CheXpert Plus's chexbert_labels/impression_fixed.json", own, "no study has a label")[:1]:
        _add_labels_of(tree, studies, options, path)


def _add_labels_of(tree: Tree, studies: Studies, options: Options, path: str) -> None:
    for id, line in tree.lines(path):
        try:
            entry = json_value(line)
            match = _PATH.search(str(entry["path_to_image"]))
            cells = {k: "" if v is None else str(v) for k, v in entry.items() if k != "path_to_image"}
            study = studies.get(f"{match.group(2)}_{match.group(3)}") if match else None
            if study is not None:
                add_ternary(study, cells, options)
                study.rows.append((id, "labels"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            tree.account.leave_out(id, f"no labels ({type(error).__name__})")


LAYOUTS = (
    Layout(
        "chexpert", "CheXpert", "train.csv, valid.csv and {train,valid}/patient*/study*/*.jpg", read, (".jpg", ".png")
    ),
    Layout(
        "chexpert-plus",
        "CheXpert Plus",
        "df_chexpert_plus_*.csv and PNG/**/patient*/study*/*.png or the DICOM files",
        read_plus,
        (".png", ".jpg", ".dcm", ".json"),
    ),
)
