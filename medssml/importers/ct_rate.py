"""CT-RATE: chest CT with reports; a patient has scans (a, b, ...), a scan has reconstructions (1, 2, ...).

    dataset/{train,valid}_fixed/train_1/train_1_a/train_1_a_1.nii.gz, or {train,valid}/ of the first release
    radiology_text_reports/{train,validation}_reports.csv       metadata/{train,validation}_metadata.csv
    multi_abnormality_labels/{train,valid}_predicted_labels.csv metadata/no_chest_{train,valid}.txt

NIfTI headers of the first release are blank: spacing and rescale are in the metadata. The `_fixed` release is right as it is,
and using the metadata on it would apply them twice; it comes first where both are there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from medssml.importers.account import LayoutError
from medssml.importers.labels import truth
from medssml.importers.study import File, Layout, Options, Studies, Study, sections, slug
from medssml.importers.tree import Row, Tree

_VOLUME = re.compile(r"((train|valid)_(\d+))_([a-z]+)_(\d+)(?:\.nii(?:\.gz)?)?$")
_EMPTY = ("", "not given.", "not given", "nan")


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per scan, its reconstructions in order; scans of other parts than the chest are left out."""
    volumes = _volumes(tree)
    if not volumes:
        raise LayoutError(tree.root, "holds no train_1_a_1.nii.gz or the like", "give the folder of CT-RATE")
    elsewhere = _no_chest(tree)
    studies = Studies()
    for name, path in volumes.items():
        if name in elsewhere:
            tree.account.file(path, "no scan of the chest (no_chest list)")
            continue
        study = _study(studies, name)
        fixed = "_fixed/" in path
        place = int(name.rpartition("_")[2])
        study.add("ct", File(path, place + (0 if fixed else 1000), name=str(place)))
    _add_reports(tree, studies)
    _add_labels(tree, studies)
    _add_metadata(tree, studies, volumes)
    tree.account.note(
        "the official split has a training and a validation part; validation is val, and there is no test part"
    )
    return studies.values()


def _volumes(tree: Tree) -> dict[str, str]:
    """Volume -> path; the fixed release first."""
    found: dict[str, str] = {}
    for path, match in tree.matching(r"(?:^|/)((?:train|valid)_\d+_[a-z]+_\d+)\.nii(\.gz)?$"):
        name = match.group(1)
        known = found.get(name)
        if known is None:
            found[name] = path
            continue
        better, worse = (path, known) if "_fixed/" in path and "_fixed/" not in known else (known, path)
        found[name] = better
        tree.account.file(worse, f"{better} is the same volume")
    return found


def _no_chest(tree: Tree) -> set[str]:
    found = set()
    for path, _ in tree.matching(r"(^|/)no_chest_(train|valid)\.txt$"):
        for id, line in tree.lines(path):
            name = line.rpartition("/")[2].split(".")[0]
            found.add(name)
            tree.account.leave_out(id, "no scan of the chest (no_chest list)", line)
    return found


def _study(studies: Studies, volume: str) -> Study:
    match = _VOLUME.match(volume)
    if match is None:
        raise LayoutError("CT-RATE", f"{volume!r} is no name of a volume", "expected train_1_a_1.nii.gz")
    patient, split, _, scan, _ = match.groups()
    study = studies.of(patient, f"{patient}_{scan}")
    study.split = split
    return study


def _known(tree: Tree, studies: Studies, pattern: str) -> Iterator[tuple[Row, str, Study]]:
    """(row, name of the volume, study) of the rows of tables whose study is on disk."""
    for table in tree.tables(pattern):
        for row in tree.rows(table, ("VolumeName",)):
            match = _VOLUME.match(row["VolumeName"])
            study = studies.get(f"{match.group(1)}_{match.group(4)}") if match else None
            if study is not None:
                yield row, row["VolumeName"].split(".")[0], study


def _add_reports(tree: Tree, studies: Studies) -> None:
    """The report of a scan is repeated for each of its reconstructions."""
    for row, _, study in _known(
        tree, studies, r"(dataset_radiology_text_reports_)?(train|valid|validation)_reports\.csv"
    ):
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
            tree.account.leave_out(row.id, "neither findings nor impression", study_id=study.study_id)


def _add_labels(tree: Tree, studies: Studies) -> None:
    for row, _, study in _known(
        tree, studies, r"(dataset_multi_abnormality_labels_)?(train|valid)_predicted_labels\.csv"
    ):
        for finding, cell in row.items():
            if finding != "VolumeName":
                study.columns[f"label_{slug(finding)}"] = truth(cell)
        study.rows.append((row.id, "labels"))


def _add_metadata(tree: Tree, studies: Studies, volumes: dict[str, str]) -> None:
    """Sex and age; for a volume with a blank header also its spacing (mm) and rescale."""
    blank = 0
    for row, name, study in _known(tree, studies, r"(dataset_metadata_)?(train|valid|validation)_metadata\.csv"):
        study.rows.append((row.id, "metadata"))
        if row["PatientSex"] in ("M", "F"):
            study.columns["group_sex"] = row["PatientSex"]
        path = volumes.get(name, "")
        first = min(study.files["ct"], key=lambda file: file.rank).path
        if path != first or "_fixed/" in path:
            continue
        plane = [float(number) for number in re.findall(r"\d+(?:\.\d+)?", row["XYSpacing"])]
        if len(plane) >= 2 and row["ZSpacing"]:
            study.columns["ct_spacing"] = f"{plane[0]:g} {plane[1]:g} {float(row['ZSpacing']):g}"
            study.columns["ct_slope"] = row["RescaleSlope"]
            study.columns["ct_intercept"] = row["RescaleIntercept"]
            blank += 1
    if blank:
        tree.account.note(
            f"{blank:,} volumes are of the first release, whose headers are blank: their spacing and rescale are in "
            "ct_spacing, ct_slope and ct_intercept; the fixed release (train_fixed, valid_fixed) needs none of it"
        )


LAYOUTS = (
    Layout(
        "ct-rate",
        "CT-RATE",
        "{train,valid}[_fixed]/train_1/train_1_a/train_1_a_1.nii.gz with *_reports.csv, *_metadata.csv, *_predicted_labels.csv",
        read,
        (".nii.gz", ".nii", ".txt"),
    ),
)
