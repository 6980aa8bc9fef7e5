"""The corpora of Temple University Hospital: TUEG, and of it TUAB, TUSZ and TUEV.

    TUEG 2  edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf, the report as .txt in the session's folder
    TUEG 1  edf/01_tcp_ar/027/00002729/s001_2006_04_12/00002729_s001.edf
    TUAB 3  edf/{train,eval}/{normal,abnormal}/01_tcp_ar/aaaaaaav_s004_t000.edf
    TUSZ 2  edf/{train,dev,eval}/aaaaaqvx/s003_2015_08_24/03_tcp_ar_a/*.edf with .csv (per channel) and .csv_bi (seiz, bckg)
    TUEV 2  edf/train/aaaaaaar/aaaaaaar_00000001.edf, edf/eval/000/bckg_000_a_.edf, each with .rec: channel, start, stop, class

The subject is the first part of the name, in TUEV's evaluation set the folder.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from medssml.importers.account import LayoutError
from medssml.importers.study import File, Layout, Options, Studies, Study
from medssml.importers.tree import Tree

_NAME = r"(?:^|/)(?P<subject>[a-z]{8}|\d{8})_s(?P<session>\d{3})(?:_t?(?P<take>[a-z]?\d{2,3}))?\.edf$"
_EVENTS = ("spsw", "gped", "pled", "eyem", "artf", "bckg")
_MONTAGE = re.compile(r"(?:^|/)(0\d_tcp_\w+?)/")
_YEAR = re.compile(r"/s\d{3}_(\d{4})")


def read_tueg(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per session; its longest recording is `eeg`, the others are in `other_files`."""
    reports = _reports(tree)
    studies = Studies()
    for path, match in _recordings(tree, _NAME):
        session = f"{match['subject']}_s{match['session']}"
        study = studies.of(match["subject"], session)
        size = (tree.root / path).stat().st_size
        study.add("eeg", File(path, -size, name=f"t{match['take'] or '000'}"))
        _describe(study, path)
        study.report = study.report or _report_of(reports, path, session)
    return studies.values()


def read_tuab(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per recording, normal or abnormal as its folder says."""
    studies = Studies()
    for path, match in _recordings(tree, r"(?:^|/)(train|eval)/(normal|abnormal)/.*?([^/]+?)_s(\d{3})_t?(\w+)\.edf$"):
        split, label, subject, session, take = match.groups()
        study = studies.of(subject, f"{subject}_s{session}_{_take(take)}")
        study.split = split
        study.columns["label_abnormal"] = str(int(label.lower() == "abnormal"))
        study.add("eeg", File(path))
        _describe(study, path)
    return studies.values()


def read_tusz(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per recording; `events` is the table of its seizures, which has a comment before its header."""
    studies = Studies()
    for path, match in _recordings(tree, r"(?:^|/)(train|dev|eval)/(?:.*/)?([a-z]{8}|\d{8})_s(\d{3})_t(\d{3})\.edf$"):
        split, subject, session, take = match.groups()
        study = studies.of(subject, f"{subject}_s{session}_t{take}")
        study.split = split
        study.add("eeg", File(path))
        _describe(study, path)
        stem = path.removesuffix(".edf")
        for ending in (".csv_bi", ".csv"):
            if stem + ending in tree.known:
                tree.account.read(stem + ending)
                study.sources.append((stem + ending, "events"))
        if stem + ".csv_bi" in tree.known:
            study.columns["events"] = stem + ".csv_bi"
            lines = [line for line in tree.text(stem + ".csv_bi").splitlines() if line and not line.startswith("#")]
            labels = [line.split(",")[3].strip().lower() for line in lines[1:] if line.count(",") >= 3]
            study.columns["label_seizure"] = str(int("seiz" in labels))
    return studies.values()


def read_tuev(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per recording; `label_<class>` says whether any event of the class is marked in it."""
    studies = Studies()
    for path, match in _recordings(tree, r"(?:^|/)(train|eval)/([^/]+)/([^/]+)\.edf$", 1, 2, 3):
        split, subject, name = match.groups()
        own = name.rstrip("_")
        study = studies.of(subject, own if own.startswith(subject) else f"{subject}_{own}")
        study.split = split
        study.add("eeg", File(path))
        marks = path.removesuffix(".edf") + ".rec"
        if marks in tree.known:
            study.sources.append((marks, "events"))
            study.columns["events"] = marks
            codes = {line.split(",")[3].strip() for line in tree.text(marks).splitlines() if line.count(",") >= 3}
            classes = {str(int(float(code))) for code in codes}
            for number, event in enumerate(_EVENTS, start=1):
                study.columns[f"label_{event}"] = str(int(str(number) in classes))
    return studies.values()


def _recordings(tree: Tree, pattern: str, *names: int) -> Iterator[tuple[str, re.Match[str]]]:
    """(path, match) of every recording; `names` are the groups that tell it from others, else its name does.

    Raises:
        LayoutError: none has such a name.
    """
    found = list(tree.unique(pattern, *names))
    if not found:
        raise LayoutError(
            tree.root, "holds no recording under the names of this corpus", "give the folder that holds edf/"
        )
    yield from found


def _take(text: str) -> str:
    return f"t{text}" if text.isdigit() else text


def _describe(study: Study, path: str) -> None:
    montage, year = _MONTAGE.search(path), _YEAR.search("/" + path)
    if montage:
        study.columns["group_montage"] = montage.group(1)
    if year:
        study.columns["year"] = year.group(1)


def _reports(tree: Tree) -> dict[str, list[str]]:
    """Folder -> its text files."""
    found: dict[str, list[str]] = {}
    for path, _ in tree.matching(r"\.txt$"):
        found.setdefault(path.rpartition("/")[0], []).append(path)
    return found


def _report_of(reports: dict[str, list[str]], path: str, session: str) -> str:
    """The report of a session: in its folder or, where recordings lie in a folder per montage, in the one above."""
    folder = path.rpartition("/")[0]
    for place in (folder, folder.rpartition("/")[0]):
        # The folder above may be that of all sessions: there only a file that is named after the session is its own.
        names = [name for name in reports.get(place, ()) if name.rpartition("/")[2].startswith(session)]
        if names:
            return names[0]
    own = [place for place in (folder, folder.rpartition("/")[0]) if re.search(r"(^|/)s\d{3}(_[\d_]+)?$", place)]
    return next((reports[place][0] for place in own if len(reports.get(place, ())) == 1), "")


def _layout(name: str, title: str, expects: str, read: Callable[[Tree, Options], Iterable[Study]]) -> Layout:
    return Layout(name, title, expects, read, (".edf", ".txt", ".rec", ".csv_bi", ".lbl", ".tse"))


LAYOUTS = (
    _layout("tueg", "TUEG", "edf/000/aaaaaaaa/s001_2015_12_30/01_tcp_ar/aaaaaaaa_s001_t000.edf", read_tueg),
    _layout("tuab", "TUAB", "edf/{train,eval}/{normal,abnormal}/01_tcp_ar/aaaaaaav_s004_t000.edf", read_tuab),
    _layout("tusz", "TUSZ", "edf/{train,dev,eval}/aaaaaqvx/s003_2015_08_24/03_tcp_ar_a/*.edf with *.csv_bi", read_tusz),
    _layout("tuev", "TUEV", "edf/train/aaaaaaar/*.edf and edf/eval/000/*.edf with *.rec", read_tuev),
)
