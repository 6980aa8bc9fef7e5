"""CT-RATE: chest CT with reports; a patient has scans (a, b, ...), a scan has reconstructions (1, 2, ...).

    dataset/{train,valid}_fixed/train_1/train_1_a/train_1_a_1.nii.gz, or {train,valid}/ of the first release
    radiology_text_reports/{train,validation}_reports.csv       metadata/{train,validation}_metadata.csv
    multi_abnormality_labels/{train,valid}_predicted_labels.csv metadata/no_chest_{train,valid}.txt

NIfTI headers of the first release are blank: spacing and rescale are in the metadata. The `_fixed` release is right as it is,
and using the metadata on it would apply them twice; it comes first where both are there. Segmentations (ts_seg) and other files
made of the volumes have the volumes' names: folders tell them apart, and what is in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from medssml.importers.account import Aside, LayoutError
from medssml.importers.labels import truth
from medssml.importers.same_name import looks_like_labels
from medssml.importers.study import File, Layout, Options, Studies, Study, sections, slug
from medssml.importers.tree import Row, Tree
from medssml.readers.errors import ReadError
from medssml.readers.nifti import has_blank_header, nifti_layout

_VOLUME = re.compile(r"((train|valid)_(\d+))_([a-z]+)_(\d+)(?:\.nii(?:\.gz)?)?$")
_EMPTY = ("", "not given.", "not given", "nan")
_NOT_CHEST = "no scan of the chest (no_chest list)"
#: Volumes of a folder that are looked into before its names are believed.
_SAMPLE = 3


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per scan, its reconstructions in order; scans of other parts than the chest are left out."""
    volumes = _volumes(tree)
    if not volumes:
        reason = "holds no volume train_1_a_1.nii.gz or the like, segmentations under such names aside"
        raise LayoutError(tree.root, reason, "give the folder of CT-RATE that holds train_fixed or valid_fixed")
    elsewhere = _no_chest(tree)
    studies = Studies()
    for name, path in volumes.items():
        if name in elsewhere:
            tree.account.file(path, Aside(_NOT_CHEST))
            continue
        study = _study(studies, name)
        place = int(name.rpartition("_")[2])
        study.add("ct", File(path, place + (0 if _is_fixed(path) else 1000), name=str(place)))
    _add_reports(tree, studies)
    _add_labels(tree, studies)
    _add_metadata(tree, studies, volumes)
    tree.account.note(
        "the official split has a training and a validation part; validation is val, and there is no test part"
    )
    return studies.values()


def _volumes(tree: Tree) -> dict[str, str]:
    """Volume -> path; the fixed release first."""
    found: dict[str, list[str]] = {}
    for path, match in tree.matching(r"(?:^|/)((?:train|valid)_\d+_[a-z]+_\d+)\.nii(\.gz)?$"):
        found.setdefault(match.group(1), []).append(path)
    labels = _folders_of_labels(tree, found.values())
    volumes: dict[str, str] = {}
    for name, paths in found.items():
        for path in (path for path in paths if _copy(path) in labels):
            tree.account.file(
                path, Aside("a segmentation: the volumes of its folder hold a few whole numbers and no HU")
            )
        mine = [path for path in paths if _copy(path) not in labels]
        best = tree.one_of([path for path in mine if _is_fixed(path)]) or tree.one_of(mine)
        if best is not None:
            volumes[name] = best
            for path in mine:
                same = _copy(path) == _copy(best) and _shape(tree, path) == _shape(tree, best)
                reason = f"{best} is the same volume" if same else f"{best} has the same name, and was taken"
                tree.account.file(path, Aside(reason)) if path != best else None
    return volumes


def _copy(path: str) -> str:
    """The folder in which the layout of CT-RATE begins: that of train, train_fixed, valid or valid_fixed."""
    return re.split(r"(?:^|/)(?:train|valid)(?:_fixed)?/", path)[0]


def _is_fixed(path: str) -> bool:
    return bool(re.search(r"(?:^|/)(?:train|valid)_fixed/", path))


def _shape(tree: Tree, path: str) -> tuple[int, ...]:
    """Of a volume, (0,) where its header cannot be read."""
    try:
        return nifti_layout(tree.root / path).shape
    except ReadError:
        return (0,)


def _folders_of_labels(tree: Tree, groups: Iterable[list[str]]) -> set[str]:
    """The copies of the layout whose first volumes are maps of labels; a folder that says so need not be looked into."""
    first: dict[str, list[str]] = {}
    for path in (path for paths in groups for path in paths):
        first.setdefault(_copy(path), []).append(path)
    return {
        copy for copy, paths in first.items() if all(looks_like_labels(tree.root / path) for path in paths[:_SAMPLE])
    }


def _no_chest(tree: Tree) -> set[str]:
    found = set()
    lists = [path for path, _ in tree.matching(r"(^|/)[^/]*no_?chest[^/]*\.txt$")]
    without = "scans of other parts than the chest may be among the studies"
    for path in tree.wanted("CT-RATE's lists no_chest_train.txt and no_chest_valid.txt", lists, without):
        for id, line in tree.lines(path):
            name = line.rpartition("/")[2].split(".")[0]
            found.add(name)
            tree.account.leave_out(id, Aside(_NOT_CHEST), line)
    return found


def _study(studies: Studies, volume: str) -> Study:
    match = _VOLUME.match(volume)
    if match is None:
        raise LayoutError("CT-RATE", f"{volume!r} is no name of a volume", "expected train_1_a_1.nii.gz")
    patient, split, _, scan, _ = match.groups()
    study = studies.of(patient, f"{patient}_{scan}")
    study.split = split
    return study


def _known(tree: Tree, studies: Studies, kind: str, without: str) -> Iterator[tuple[Row, str, Study]]:
    """(row, name of the volume, study) of the rows of the tables of a kind whose study is on disk."""
    tables = []
    for split in ("train", "valid(?:ation)?"):
        tables += tree.tables(rf"(?:.*_)?{split}_(?:predicted_)?{kind}\.csv") or tree.tables(
            rf".*{split}.*_{kind}.*\.csv"
        )
    for table in tree.wanted(f"CT-RATE's tables *_{kind}.csv", tables, without):
        for row in tree.rows(table, ("VolumeName",)):
            match = _VOLUME.match(row["VolumeName"])
            study = studies.get(f"{match.group(1)}_{match.group(4)}") if match else None
            if study is not None:
                yield row, row["VolumeName"].split(".")[0], study


def _add_reports(tree: Tree, studies: Studies) -> None:
    """The report of a scan is repeated for each of its reconstructions."""
    for row, _, study in _known(tree, studies, "reports", "no study has a report"):
        names = {
            "indication": "ClinicalInformation_EN",
            "technique": "Technique_EN",
            "findings": "Findings_EN",
            "impression": "Impressions_EN",
        }
        parts = {ours: row[theirs] for ours, theirs in names.items() if row[theirs].lower() not in _EMPTY}
        study.report_text = study.report_text or (sections(**parts) if {"findings", "impression"} & set(parts) else "")
        if study.report_text:
            study.rows.append((row.id, "report_text"))
        else:
            tree.account.leave_out(row.id, Aside("neither findings nor impression"), study_id=study.study_id)


def _add_labels(tree: Tree, studies: Studies) -> None:
    for row, _, study in _known(tree, studies, "labels", "no study has a label"):
        for finding, cell in row.items():
            if finding != "VolumeName":
                study.columns[f"label_{slug(finding)}"] = truth(cell)
        study.rows.append((row.id, "labels"))


def _add_metadata(tree: Tree, studies: Studies, volumes: dict[str, str]) -> None:
    """Sex and age; for a volume with a blank header also its spacing (mm) and rescale."""
    blank = 0
    without = "blank headers of the first release stay blank"
    for row, name, study in _known(tree, studies, "metadata", without):
        study.rows.append((row.id, "metadata"))
        if row["PatientSex"] in ("M", "F"):
            study.columns["group_sex"] = row["PatientSex"]
        path = volumes.get(name, "")
        first = min(study.files["ct"], key=lambda file: file.rank).path
        if path != first or not _is_blank(tree, path):
            continue
        plane = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row["XYSpacing"])]
        if len(plane) >= 2 and row["ZSpacing"]:
            study.columns["ct_spacing"] = f"{plane[0]:g} {plane[1]:g} {float(row['ZSpacing']):g}"
            blank += 1
            if not _is_fixed(path):  # the values of the fixed release are HU, whatever became of a header since
                study.columns["ct_slope"] = row["RescaleSlope"]
                study.columns["ct_intercept"] = row["RescaleIntercept"]
    if blank:
        tree.account.note(
            f"{blank:,} volumes have blank headers, as those of the first release: their spacing and, outside of the fixed "
            "release, their rescale are in ct_spacing, ct_slope and ct_intercept; the fixed release (train_fixed, "
            "valid_fixed) needs none of it"
        )


def _is_blank(tree: Tree, path: str) -> bool:
    """Whether the header states no geometry; of one that cannot be read the folder says which release it is."""
    try:
        return has_blank_header(tree.root / path)
    except ReadError:
        return not _is_fixed(path)


LAYOUTS = (
    Layout(
        "ct-rate",
        "CT-RATE",
        "{train,valid}[_fixed]/train_1/train_1_a/train_1_a_1.nii.gz with *_reports.csv, *_metadata.csv, *_predicted_labels.csv",
        read,
        (".nii.gz", ".nii", ".txt"),
    ),
)
