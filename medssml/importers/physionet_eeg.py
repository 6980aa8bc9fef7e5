"""Three EEG collections of PhysioNet: CHB-MIT (seizures), Sleep-EDF Expanded, and the motor imagery of EEGMMIDB.

    CHB-MIT     chb01/chb01_03.edf, chb01/chb01-summary.txt, SUBJECT-INFO
    Sleep-EDFx  sleep-cassette/SC4001E0-PSG.edf with SC4001EC-Hypnogram.edf; sleep-telemetry/ST7011J0-PSG.edf
    EEGMMIDB    S001/S001R03.edf

None has an official split. chb21 is the patient of chb01, 1.5 years later. The last letter of a hypnogram's name is its scorer's:
it goes by the first six characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from medssml.importers.account import LayoutError
from medssml.importers.study import File, Layout, Options, Studies, Study
from medssml.importers.tree import Tree

_SAME = {"chb21": "chb01"}
_TASKS = ("eyes open", "eyes closed", "fist", "imagined fist", "fists or feet", "imagined fists or feet")


# CHB-MIT


def read_chb_mit(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per recording; `seizures` are their seconds, such as 2996-3036."""
    seizures = _summaries(tree)
    people = _subject_info(tree)
    studies = Studies()
    for path, match in tree.unique(r"(?:^|/)((chb\d+)[a-z]?_\d+\+?)\.edf$"):
        name, case = match.group(1), match.group(2).lower()
        study = studies.of(_SAME.get(case, case), name)
        study.columns["case"] = case
        study.add("eeg", File(path))
        if name + ".edf" in seizures:
            spans = seizures[name + ".edf"]
            study.columns["label_seizure"] = str(int(bool(spans)))
            study.columns["seizures"] = ";".join(f"{start}-{end}" for start, end in spans)
        marks = path + ".seizures"
        if marks in tree.known:
            study.sources.append((marks, "events"))
        study.columns.update(people.get(case, {}))
    if not studies:
        raise LayoutError(tree.root, "holds no chb01_03.edf or the like", "give the folder of CHB-MIT")
    return studies.values()


def _summaries(tree: Tree) -> dict[str, list[tuple[int, int]]]:
    """Recording -> (start, end) of its seizures in s, [] where the summary says that there is none.

    The number is the last of its line: "Seizure Start Time: 2996 seconds" and "Seizure 2 Start Time: 2996 seconds".
    """
    found: dict[str, list[tuple[int, int]]] = {}
    for path, _ in tree.matching(r"(?:^|/)chb\d+-summary\.txt$"):
        spans: list[tuple[int, int]] = []
        start = 0
        for line in tree.text(path).splitlines():
            numbers = re.findall(r"\d+", line.partition(":")[2])
            if line.startswith("File Name"):
                spans = found.setdefault(line.partition(":")[2].strip(), [])
            elif re.match(r"Seizure( \d+)? Start Time", line) and numbers:
                start = int(numbers[-1])
            elif re.match(r"Seizure( \d+)? End Time", line) and numbers:
                spans.append((start, int(numbers[-1])))
    return found


def _subject_info(tree: Tree) -> dict[str, dict[str, str]]:
    """Case -> sex and age, from the table without a proper header."""
    found = {}
    for path in tree.by_name.get("SUBJECT-INFO", [])[:1]:
        for line in tree.text(path).splitlines():
            match = re.match(r"\s*(chb\d+)\s+([FM])\s+([\d.]+)", line)
            if match:
                found[match.group(1)] = {"group_sex": match.group(2), "age": match.group(3)}
    return found


# Sleep-EDF Expanded


def read_sleep_edfx(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per night, SC4ssN and ST7ssN: subject ss, night N; `events` is the hypnogram."""
    hypnograms = {
        match.group(1).upper(): path for path, match in tree.matching(r"(?:^|/)((?:SC4|ST7)\d{3})\w*-Hypnogram\.edf$")
    }
    studies = Studies()
    for path, match in tree.unique(r"(?:^|/)((SC4|ST7)(\d{2})(\d))\w*-PSG\.edf$"):
        night = match.group(1).upper()
        study = studies.of(night[:5], night)
        study.columns["night"] = match.group(4)
        study.columns["group_part"] = "cassette" if match.group(2).upper() == "SC4" else "telemetry"
        study.add("eeg", File(path))
        if night in hypnograms:
            study.columns["events"] = hypnograms[night]
            study.sources.append((hypnograms[night], "events"))
    if not studies:
        raise LayoutError(tree.root, "holds no SC4001E0-PSG.edf or the like", "give the folder of Sleep-EDFx")
    tree.account.note(
        "age and sex are in SC-subjects.xls and ST-subjects.xls, which are not read: save them as CSV to join them"
    )
    return studies.values()


# EEGMMIDB


def read_eegmmidb(tree: Tree, options: Options) -> Iterable[Study]:
    """One study per run; `label_task` is the place of `task` among the six."""
    studies = Studies()
    for path, match in tree.unique(r"(?:^|/)(S\d{3})R(\d{2})\.edf$"):
        subject, run = match.group(1).upper(), int(match.group(2))
        study = studies.of(subject, f"{subject}R{run:02d}")
        study.add("eeg", File(path))
        if 1 <= run <= 14:
            place = run - 1 if run < 3 else 2 + (run - 3) % 4
            study.columns["task"], study.columns["label_task"] = _TASKS[place], str(place)
        if path + ".event" in tree.known:
            study.sources.append((path + ".event", "events"))
    if not studies:
        raise LayoutError(tree.root, "holds no S001R01.edf or the like", "give the folder of the motor imagery data")
    return studies.values()


LAYOUTS = (
    Layout(
        "chb-mit",
        "CHB-MIT",
        "chb01/chb01_01.edf and chb01/chb01-summary.txt",
        read_chb_mit,
        (".edf", ".seizures"),
        ("chbmit",),
    ),
    Layout(
        "sleep-edfx",
        "Sleep-EDF Expanded",
        "sleep-cassette/SC4001E0-PSG.edf",
        read_sleep_edfx,
        (".edf",),
        ("sleep-edf",),
    ),
    Layout(
        "eegmmidb",
        "PhysioNet motor imagery",
        "S001/S001R01.edf",
        read_eegmmidb,
        (".edf", ".event"),
        ("eegbci", "physionet-mi"),
    ),
)
