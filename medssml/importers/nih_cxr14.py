"""NIH ChestX-ray14.

    images/00000001_000.png, or images_001 ... images_012/images/*.png
    Data_Entry_2017.csv or Data_Entry_2017_v2020.csv; train_val_list.txt, test_list.txt; BBox_List_2017.csv

Findings are separated by bars. Two of the headers hold a comma inside brackets, so that a CSV reader sees two columns each; the
release of 2017 ends every line with a comma. The official list does not part training from validation. No reports.
"""

from __future__ import annotations

from collections.abc import Iterable

from medssml.importers.account import Aside, LayoutError
from medssml.importers.labels import add_findings
from medssml.importers.study import Layout, Options, Studies, Study, radiograph, view_of
from medssml.importers.tree import Tree


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per image: a follow-up of a patient."""
    tables = tree.tables(r"Data_Entry_2017.*\.csv")
    if not tables:
        raise LayoutError(tree.root, "holds no Data_Entry_2017*.csv", "give the folder of ChestX-ray14")
    studies = Studies()
    findings: list[tuple[Study, list[str]]] = []
    for row in tree.rows(tables[0], ("Image Index", "Finding Labels")):
        name = row["Image Index"]
        own = name.removesuffix(".png")
        if own in studies:
            tree.account.leave_out(row.id, Aside("the image has a row already"), name, own)
            continue
        path = tree.find(name)
        # The id as the file has it, with its zeros: the table's Patient ID has lost them.
        study = studies.of(own.partition("_")[0], own)
        if path is None:
            tree.account.leave_out(row.id, "no such image on disk", name, own)
            continue
        study.add("xray", radiograph(path, view_of(row["View Position"]), row.id))
        study.columns["age"] = row["Patient Age"].rstrip("Yy").lstrip("0")
        study.columns["group_sex"] = row["Patient Gender"] or row["Patient Sex"]
        findings.append((study, row["Finding Labels"].split("|")))
    add_findings(findings)
    _add_splits(tree, studies)
    return studies.values()


def _add_splits(tree: Tree, studies: Studies) -> None:
    """The lists of images of the two parts, whatever the release calls them."""
    for name, split, pattern in (
        ("train_val_list.txt", "train", r"(^|/)[^/]*train[^/]*list[^/]*\.txt$"),
        ("test_list.txt", "test", r"(^|/)(?![^/]*train)[^/]*test[^/]*list[^/]*\.txt$"),
    ):
        lists = sorted((path for path, _ in tree.matching(pattern)), key=lambda path: not path.endswith(name))  # noqa: B023
        for path in tree.wanted(f"ChestX-ray14's list {name}", lists, "the official split is not used, or not whole")[
            :1
        ]:
            for id, line in tree.lines(path):
                listed = studies.get(line.rpartition("/")[2].removesuffix(".png"))
                if listed is not None:
                    listed.split = split
                    listed.rows.append((id, "split"))


LAYOUTS = (
    Layout(
        "nih-cxr14",
        "NIH ChestX-ray14",
        "Data_Entry_2017*.csv and images*/**/*.png",
        read,
        (".png",),
        ("chestx-ray14", "nih"),
    ),
)
