"""PadChest: Spanish reports, 16-bit PNG.

    <ImageDir>/<ImageID>.png or images/<ImageID>.png; PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv[.gz]

`Labels` is a list as Python prints it; a study without any has an empty cell. "exclude" says that annotators could not use the
report. No official split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medssml.importers.account import LayoutError
from medssml.importers.labels import add_findings
from medssml.importers.study import Layout, Options, Studies, Study, radiograph, view_of
from medssml.importers.tree import Tree

#: A finding in fewer of the studies gets no column of its own; all are in `findings`.
LEAST_SHARE = 0.01


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per StudyID; its report and labels are repeated on each of its images."""
    tables = tree.tables(r"PADCHEST.*images_labels.*\.csv")
    if not tables:
        raise LayoutError(tree.root, "holds no PADCHEST_*_images_labels_*.csv", "give the folder of PadChest")
    studies = Studies()
    findings: dict[str, list[str]] = {}
    for row in tree.rows(tables[0], ("ImageID", "StudyID", "PatientID")):
        study = studies.of(row["PatientID"], row["StudyID"])
        if study.subject_id != row["PatientID"]:
            tree.account.leave_out(row.id, "the study is of another patient in an earlier row", row["ImageID"])
            continue
        report = row["Report"]
        study.report_text = study.report_text or (report if report.lower() not in ("", "none", "nan") else "")
        path = tree.find(f"{row['ImageDir']}/{row['ImageID']}") or tree.find(row["ImageID"])
        if path is not None:
            study.add("xray", radiograph(path, view_of(_projection(row["Projection"])), row.id))
        elif study.report_text:
            tree.account.file(row["ImageID"], "no such image on disk", (tables[0], row.number), "xray")
            study.rows.append((row.id, "report_text"))
        else:
            tree.account.leave_out(row.id, "no such image on disk", row["ImageID"], study.study_id)
        labels = [
            label.strip().lower() for label in re.findall(r"'([^']*)'|\"([^\"]*)\"", row["Labels"]) for label in label
        ]
        labels = [label for label in labels if label]
        if labels and "exclude" not in labels:
            findings.setdefault(study.study_id, labels)
        if row["PatientSex_DICOM"] in ("M", "F"):
            study.columns["group_sex"] = row["PatientSex_DICOM"]
        if row["MethodLabel"]:
            study.columns["labelled_by"] = row["MethodLabel"]
    for name, labels in findings.items():
        studies[name].columns["findings"] = ";".join(dict.fromkeys(labels))
    add_findings(((studies[name], labels) for name, labels in findings.items()), LEAST_SHARE)
    return studies.values()


def _projection(name: str) -> str:
    """AP_horizontal is supine; COSTAL shows ribs and EXCLUDE nothing: no view of the chest."""
    return "other" if name.upper() in ("COSTAL", "EXCLUDE", "UNK") else name


LAYOUTS = (Layout("padchest", "PadChest", "PADCHEST_*_images_labels_*.csv and **/*.png", read, (".png",)),)
