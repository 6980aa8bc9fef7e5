"""INSPECT (Stanford AIMI): CT pulmonary angiography with impressions and labels.

    full/CTPA/<image_id>.nii.gz
    study_mapping_20250611.tsv (impression_id, image_id, person_id, procedure_DATETIME), impressions_20250611.tsv (impression_id,
    impressions), splits_20250611.tsv (impression_id, split), labels_20250611.tsv (True, False, Censored)

Some impression_ids are listed twice among the splits.
"""

from __future__ import annotations

from collections.abc import Iterable

from medssml.importers.account import Aside, LayoutError
from medssml.importers.labels import truth
from medssml.importers.study import File, Layout, Options, Studies, Study, slug
from medssml.importers.tree import Tree

_NO_LABEL = ("impression_id", "image_id", "person_id", "procedure_datetime", "split", "study_time")


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per impression; the subject is the person."""
    mapping = tree.tables(r"study_mapping(_\w+)?\.(tsv|csv)")
    if not mapping:
        raise LayoutError(tree.root, "holds no study_mapping_*.tsv", "give the folder of INSPECT")
    studies = Studies()
    for row in tree.rows(mapping[0], ("impression_id", "image_id", "person_id")):
        name = row["impression_id"]
        if name in studies:
            tree.account.leave_out(row.id, Aside("the impression has a row already"), study_id=name)
            continue
        if not row["person_id"]:
            tree.account.leave_out(row.id, "no person", study_id=name)
            continue
        study = studies.of(row["person_id"], name)
        path = tree.find(f"{row['image_id'].removesuffix('.nii.gz')}.nii.gz")
        if path is not None:
            study.add("ct", File(path, row=row.id))
        else:
            tree.account.file(row["image_id"], "no such volume on disk", (mapping[0], row.number), "ct")
            study.rows.append((row.id, "subject_id"))
    _join(tree, studies)
    return studies.values()


def _join(tree: Tree, studies: Studies) -> None:
    tables = tree.tables(r"impressions(_\w+)?\.(tsv|csv)")[:1]
    for table in tree.wanted("INSPECT's impressions_*.tsv", tables, "no study has a report"):
        for row in tree.rows(table, ("impression_id",)):
            study = studies.get(row["impression_id"])
            text = row["impressions"] or row["impression"] or row["text"]
            if study is not None and text and not study.report_text:
                study.report_text = f"IMPRESSION: {text}"
                study.rows.append((row.id, "report_text"))
    tables = tree.tables(r"splits(_\w+)?\.(tsv|csv)")[:1]
    for table in tree.wanted("INSPECT's splits_*.tsv", tables, "the official split is not used"):
        for row in tree.rows(table, ("impression_id", "split")):
            study = studies.get(row["impression_id"])
            if study is None:
                continue
            if study.split:
                tree.account.leave_out(row.id, Aside("the impression has a split already"), study_id=study.study_id)
            else:
                study.split = row["split"]
                study.rows.append((row.id, "split"))
    tables = tree.tables(r"labels(_\w+)?\.(tsv|csv)")[:1]
    for table in tree.wanted("INSPECT's labels_*.tsv", tables, "no study has a label"):
        for row in tree.rows(table, ("impression_id",)):
            study = studies.get(row["impression_id"])
            if study is None:
                continue
            for column, cell in row.items():
                if slug(column) not in _NO_LABEL and (truth(cell) or cell.lower().startswith("censor")):
                    study.columns[f"label_{slug(column)}"] = truth(cell)
            study.rows.append((row.id, "labels"))


LAYOUTS = (
    Layout(
        "inspect",
        "INSPECT",
        "CTPA/*.nii.gz with study_mapping_*.tsv, impressions_*.tsv, splits_*.tsv",
        read,
        (".nii.gz",),
    ),
)
