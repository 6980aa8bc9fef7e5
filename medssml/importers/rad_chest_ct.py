"""RAD-ChestCT: volumes as NumPy archives, labels of findings by location.

    trn00001.npz, val00001.npz, tst00001.npz (array `ct`)
    img{train,valid,test}_Abnormality_and_Location_Labels.csv: NoteAcc_DEID, <finding>*<location> ...
    CT_Scan_Metadata_Complete_35747.csv: NoteAcc_DEID, MRN_DEID, VolumeAcc_DEID, final_spacing, ...

The archives hold neither spacing nor orientation, so no reader can take them: `Options.write_into` converts each to NIfTI. Their
axes run to inferior, posterior and left, as the columns of Extrema_5747.csv say (sup_axis0min, ant_axis1min, rig_axis2min).
No reports are public.
"""

from __future__ import annotations

import gzip
import zipfile
from collections.abc import Iterable
from pathlib import Path

from medssml.files import whole
from medssml.importers.account import Aside, LayoutError
from medssml.importers.outputs import own_folder
from medssml.importers.study import File, Layout, Options, Studies, Study, slug
from medssml.importers.tree import Row, Tree

_SPLITS = {"trn": "train", "val": "valid", "tst": "test"}
_MM = 0.8
_LARGEST = 2 * 1024**3


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per volume; the subject is the patient of the metadata."""
    metadata = {}
    for table in tree.tables(r"CT_Scan_Metadata_Complete_\d+\.csv")[:1]:
        metadata = {row["NoteAcc_DEID"]: row for row in tree.rows(table, ("NoteAcc_DEID", "MRN_DEID"))}
    if not metadata:
        reason = "holds no CT_Scan_Metadata_Complete_*.csv, which says who is the same patient"
        raise LayoutError(tree.root, reason, "put it into the folder of RAD-ChestCT")
    studies = Studies()
    for path, match in tree.unique(r"(?:^|/)((trn|val|tst)\d+)\.(npz|nii|nii\.gz)$", 1, 3):
        name = match.group(1)
        if name not in metadata:
            tree.account.file(path, "no row of the metadata")
            continue
        place = path if match.group(3) != "npz" else _converted(tree, path, metadata[name], options.write_into)
        if not place:
            continue
        study = studies.of(metadata[name]["MRN_DEID"], name)
        study.split = _SPLITS[match.group(2).lower()]
        study.add("ct", File(place, members=(path,)))
        study.rows.append((metadata[name].id, "metadata"))
    for row in metadata.values():  # the table lists all 35,747 scans, of which a tenth is public
        if row["NoteAcc_DEID"] not in studies:
            tree.account.leave_out(row.id, Aside("a scan that is not here"))
    _add_labels(tree, studies)
    return studies.values()


def _add_labels(tree: Tree, studies: Studies) -> None:
    """A finding is there where it is there at any location."""
    tables = tree.tables(r"img(train|valid|test)_Abnormality.*Labels.*\.csv")
    for table in tree.wanted("RAD-ChestCT's img*_Abnormality_and_Location_Labels.csv", tables, "no study has a label"):
        for row in tree.rows(table, ("NoteAcc_DEID",)):
            study = studies.get(row["NoteAcc_DEID"])
            if study is None:
                tree.account.leave_out(row.id, Aside("a scan that is not here"))
                continue
            found: dict[str, int] = {}
            for column, cell in row.items():
                finding, mark, _ = column.partition("*")
                if mark and cell:
                    found[finding] = max(found.get(finding, 0), int(float(cell) > 0))
            study.columns.update({f"label_{slug(finding)}": str(value) for finding, value in found.items()})
            study.rows.append((row.id, "labels"))


def _converted(tree: Tree, path: str, row: Row, into: Path | None) -> str:
    """The NIfTI file that `path` was made into, relative to the root; "", accounted for, where it cannot be."""
    if into is None:
        tree.account.file(path, "an .npz has neither spacing nor orientation; fix: --write-into FOLDER converts it")
        return ""
    if not into.resolve().is_relative_to(tree.root.resolve()):
        raise LayoutError(into, f"is not below {tree.root}", "give --write-into a folder below the root")
    target = into / f"{Path(path).stem}.nii.gz"
    if not target.exists():
        try:
            spacing = float(row["final_spacing"] or _MM)
            _write_nifti(tree.root / path, target, spacing)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
            tree.account.file(path, f"cannot be converted ({type(error).__name__}: {error})"[:160])
            return ""
    return target.resolve().relative_to(tree.root.resolve()).as_posix()


def _write_nifti(source: Path, target: Path, spacing: float) -> None:
    """The array `ct`, (Z, Y, X) to inferior, posterior, left, as an int16 NIfTI file in HU.

    Raises:
        ValueError: no such array, another shape, or values that are not HU.
    """
    import nibabel
    import numpy as np

    with zipfile.ZipFile(source) as archive:
        declared = sum(info.file_size for info in archive.infolist())
    if declared > _LARGEST:
        raise ValueError(f"declares {declared:,} bytes, limit {_LARGEST:,}")
    with np.load(source) as archive:
        values = archive["ct"]
    if values.ndim != 3:
        raise ValueError(f"ct has {values.ndim} dimensions, expected 3")
    if not -2048 <= float(values.min()) <= -500:
        raise ValueError(f"least value {float(values.min()):g}, expected air near -1000 HU")
    affine = np.diag([-spacing, -spacing, -spacing, 1.0])
    image = nibabel.Nifti1Image(np.ascontiguousarray(values.transpose(2, 1, 0).astype(np.int16)), affine)
    image.header.set_xyzt_units("mm")
    own_folder(target.parent)
    with whole(target) as beside, gzip.open(beside, "wb", compresslevel=1) as stream:
        image.to_stream(stream)


LAYOUTS = (
    Layout(
        "rad-chest-ct",
        "RAD-ChestCT",
        "trn*.npz, val*.npz, tst*.npz, CT_Scan_Metadata_Complete_35747.csv and img*_Abnormality_and_Location_Labels.csv",
        read,
        (".npz",),
        ("radchestct",),
    ),
)
