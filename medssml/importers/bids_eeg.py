"""BIDS with EEG (Pernet et al. 2019).

    participants.tsv
    sub-01/[ses-01/]eeg/sub-01[_ses-01]_task-rest[_run-1]_eeg.{edf,bdf,vhdr,set,...} with _events.tsv, _channels.tsv, _eeg.json

Derivatives and source data are no part of the raw data set. Sidecars of a whole data set, subject or session lie in a folder
above, and hold for what is below them (see `inheritance`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medssml.importers.account import UNMATCHED, Aside, LayoutError
from medssml.importers.columns import classes_of
from medssml.importers.inheritance import Sidecars
from medssml.importers.study import File, Layout, Options, Studies, Study, slug
from medssml.importers.tree import Row, Tree

_RECORDING = (
    r"(?:^|/)(?P<stem>sub-(?P<sub>[A-Za-z0-9]+)(?P<rest>(?:_[a-z]+-[A-Za-z0-9]+)*))_eeg\.(?:edf|bdf|gdf|vhdr|set|fif)$"
)
_ASIDE = ("derivatives", "sourcedata", "code", "stimuli")
_SAID = {"PowerLineFrequency": "power_line_hz", "EEGReference": "eeg_reference"}
_SIDE = (".eeg", ".vmrk", ".fdt", ".tsv", ".json")


def read(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per recording: subject, session, task and run; participants.tsv describes the subject."""
    studies = Studies()
    sidecars = Sidecars(tree)
    for path, match in tree.matching(_RECORDING):
        if path.split("/")[0] in _ASIDE or "/derivatives/" in path:
            tree.account.file(path, Aside(f"in {path.split('/')[0]}, not in the raw data set"))
            continue
        study = studies.of(f"sub-{match['sub']}", match["stem"])
        stem = path[: path.rindex("_eeg.")]
        beside = [side for side in tree.beside(path) if side.startswith(stem + "_") and side != path]
        members = [side for side in beside if side.startswith(stem + "_eeg.") and side.lower().endswith(_SIDE[:3])]
        study.add("eeg", File(path, members=(path, *members)))
        for side in beside:
            if side not in members and side not in sidecars.known and side.lower().endswith(_SIDE):
                study.sources.append((side, "sidecar"))
        _add_sidecars(study, sidecars, path)
        for key, value in re.findall(r"_(ses|task|acq|run)-([A-Za-z0-9]+)", match["rest"]):
            study.columns[{"ses": "session"}.get(key, key)] = value
    if not studies:
        raise LayoutError(
            tree.root, "holds no sub-*_eeg.edf, .bdf, .vhdr or .set", "give the root of the BIDS data set"
        )
    _add_participants(tree, studies, options)
    return studies.values()


def _add_sidecars(study: Study, sidecars: Sidecars, path: str) -> None:
    """`events`, `bad_channels`, `power_line_hz` and `eeg_reference`, from wherever in the tree they are said."""
    found = sidecars.of(path)
    said = sidecars.merged(found.get("eeg.json", []))
    for kind, paths in found.items():
        used = paths if kind == "eeg.json" else paths[:1]
        used = [side for side in used if side not in sidecars.broken]
        study.sources += [(side, "events" if kind == "events.tsv" else "sidecar") for side in used]
    if "events.tsv" in found:
        study.columns["events"] = found["events.tsv"][0]
    if "channels.tsv" in found:
        rows = sidecars.rows(found["channels.tsv"][0])
        bad = [row.get("name", "") for row in rows if row.get("status", "").lower() == "bad"]
        study.columns |= {"bad_channels": ";".join(bad)} if bad else {}
    for key, column in _SAID.items():
        value = said.get(key)
        if isinstance(value, (str, int, float)) and str(value).lower() not in ("", "n/a"):
            study.columns[column] = str(value)


def _add_participants(tree: Tree, studies: Studies, options: Options) -> None:
    """Sex, age and whatever else is known of a subject; `--column label_<task>=NAME` makes a target of a column."""
    tables = tree.wanted(
        "BIDS's participants.tsv", tree.tables(r"participants\.tsv"), "nothing is known of the subjects"
    )
    if not tables:
        return
    rows = list(tree.rows(tables[0], ("participant_id",)))
    wanted = {theirs: ours for ours, theirs in options.columns.items()}
    numbers = {}
    for theirs, ours in wanted.items():
        classes = classes_of(ours, [row[theirs] for row in rows])
        if classes is None or not any(row[theirs] for row in rows):
            raise LayoutError(
                tree.root / tables[0], f"{theirs!r} is no column of classes", "name another with --column"
            )
        numbers[theirs] = classes.numbers
        if classes.note:
            tree.account.note(classes.note)
    of_subject: dict[str, list[Study]] = {}
    for study in studies.values():
        of_subject.setdefault(study.subject_id, []).append(study)
    named = {row.id: f"sub-{row['participant_id'].removeprefix('sub-')}" for row in rows}
    for row in rows:
        if named[row.id] not in of_subject and not of_subject.keys().isdisjoint(named.values()):
            tree.account.leave_out(row.id, Aside(UNMATCHED))
        for study in of_subject.get(named[row.id], []):
            study.rows.append((row.id, "columns"))
            _describe(study, row, wanted, numbers)


def _describe(study: Study, row: Row, wanted: dict[str, str], numbers: dict[str, dict[str, str]]) -> None:
    for column, cell in row.items():
        if column == "participant_id" or cell.lower() in ("", "n/a"):
            continue
        if column in wanted:
            study.columns[wanted[column]] = numbers[column].get(cell, cell)
        elif slug(column) in ("sex", "gender"):
            study.columns["group_sex"] = {"m": "M", "male": "M", "f": "F", "female": "F"}.get(cell.lower(), cell)
        else:
            study.columns[f"participant_{slug(column)}"] = cell


LAYOUTS = (
    Layout(
        "bids-eeg",
        "BIDS with EEG",
        "participants.tsv and sub-*/[ses-*/]eeg/sub-*_eeg.{edf,bdf,vhdr,set}",
        read,
        (".edf", ".bdf", ".gdf", ".vhdr", ".set", ".fif", ".eeg", ".vmrk", ".fdt"),
        ("bids",),
    ),
)
