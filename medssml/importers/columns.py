"""Which column of somebody's table is which column of a manifest: guessed by name and by content, and said aloud."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

from medssml.importers.study import slug
from medssml.importers.tree import Row

#: Manifest column -> names that tables give it, the surest first.
_NAMES: dict[str, tuple[str, ...]] = {
    "subject_id": (
        *("subject_id", "subjectid", "subject", "patient_id", "patientid", "deid_patient_id", "patient", "mrn"),
        *(
            "person_id",
            "participant_id",
            "participant",
            "pat_id",
            "patid",
            "pid",
            "patnr",
            "patient_number",
            "pseudonym",
        ),
    ),
    "study_id": (
        *(
            "study_id",
            "studyid",
            "study_instance_uid",
            "studyinstanceuid",
            "study_uid",
            "accession_number",
            "accession",
        ),
        *("accession_no", "accessionnumber", "exam_id", "examid", "study", "visit_id", "encounter_id", "session_id"),
    ),
    "split": ("split", "partition", "subset", "fold_name", "dataset_split", "set"),
    "group_sex": ("group_sex", "sex", "gender", "patient_sex", "patientsex", "geschlecht", "sexo"),
    "group_view": ("group_view", "view", "view_position", "viewposition", "projection", "frontal_lateral"),
    "group_site": ("group_site", "site", "hospital", "center", "centre", "institution"),
}
#: Sections of a report, in the order in which they are joined.
_SECTIONS = ("indication", "technique", "comparison", "findings", "impression")
#: Files that are made of an input, not an input.
_NO_INPUT = re.compile(r"(^|_)(masks?|seg\w*|annot\w*|labels?|thumb\w*|orig\w*|boxes)(_|$)")
_WHOLE = ("report_text", "report", "text", "narrative", "report_body", "radiology_report", "befund", "informe")
_LABELS = ("label", "labels", "target", "diagnosis", "outcome", "class", "y")
_ENDINGS = {
    "eeg": r"\.(edf|bdf|gdf|fif|fif\.gz|set|vhdr)$",
    "ct": r"\.(nii|nii\.gz|mha|mhd|nrrd|npz|npy)$",
    "xray": r"\.(png|jpe?g|dcm|dicom|tiff?)$",
    "report": r"\.(txt|text|rpt|xml|rtf|md)$",
}
_SAMPLE = 500
_NEVER = frozenset({"", "na", "n/a", "nan", "null", "none"})


class Guess(NamedTuple):
    """One column. ours: of the manifest, or "section_<name>"; source: of the table; because: in words."""

    ours: str
    source: str
    because: str


def sample_of(rows: Sequence[Row], columns: Iterable[str]) -> dict[str, list[str]]:
    """The first 500 cells of each column that hold something, wherever they stand: a table may have its sources in blocks."""
    return {column: list(islice((cell for row in rows if (cell := row[column])), _SAMPLE)) for column in columns}


def guess_columns(
    sample: Mapping[str, Sequence[str]], given: Mapping[str, str], exists: Callable[[str], bool]
) -> list[Guess]:
    """What each column of a table is.

    Args:
        sample: column -> some of its cells. given: manifest column -> column, which the user has said.
        exists: whether a cell names a file that is there.

    Raises:
        KeyError: a given column that the table does not have.
    """
    for ours, source in given.items():
        if source not in sample:
            raise KeyError(f"--column {ours}={source}: no such column; the table has {', '.join(list(sample)[:30])}")
    found = [Guess(ours, source, "as given") for ours, source in given.items()]
    taken, wanted = set(given.values()), set(given)
    by_slug = {slug(_split_words(column)): column for column in reversed(list(sample)) if column not in taken}
    # A table that is a manifest already, or nearly so.
    for name in [n for n in by_slug if n.startswith(("label_", "group_")) and n not in wanted]:
        found.append(Guess(name, by_slug[name], "its name"))
        taken.add(by_slug[name])
        wanted.add(name)
    for ours, names in _NAMES.items():
        named = next((by_slug[name] for name in names if name in by_slug and by_slug[name] not in taken), None)
        if named is not None and ours not in wanted:
            found.append(Guess(ours, named, "its name"))
            taken.add(named)
    for column in (column for column in sample if column not in taken):
        cells = [cell for cell in sample[column] if cell.strip().lower() not in _NEVER]
        guess = _by_content(column, cells, exists)
        if guess is not None and (guess.ours == "xray_lateral" or guess.ours not in wanted):
            found.append(guess)
            wanted |= {guess.ours} - {"report_text"}
    return _one_text(found)


def _split_words(name: str) -> str:
    """StudyInstanceUID -> Study_Instance_UID; slug() does the rest."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _by_content(column: str, cells: Sequence[str], exists: Callable[[str], bool]) -> Guess | None:
    """A column of files, of text or of labels, by what is in it."""
    if not cells:
        return None
    name = slug(_split_words(column))
    for kind, ending in _ENDINGS.items():
        share = sum(bool(re.search(ending, cell.strip(), re.IGNORECASE)) for cell in cells) / len(cells)
        if share > 0.5 and not _NO_INPUT.search(name) and any(map(exists, cells)):
            ours = "ct" if kind == "xray" and re.match(r"ct(_|$)|.*volume", name) else kind
            ours = "xray_lateral" if ours == "xray" and "lateral" in name.split("_") else ours
            return Guess(ours, column, f"{share:.0%} of its cells name such files")
    words = sorted(len(cell.split()) for cell in cells)[len(cells) // 2]
    if words >= 4:
        section = next((s for s in _SECTIONS if re.search(rf"(^|_){s[:-1]}", name)), None)
        if section is not None:
            return Guess(f"section_{section}", column, f"its name, and {words} words in a typical cell")
        if name in _WHOLE:
            return Guess("report_text", column, f"its name, and {words} words in a typical cell")
    if name in ("ct", "ct_path", "ct_folder", "ct_dir", "dicom_dir", "series_path") and any(map(exists, cells)):
        return Guess("ct", column, "its name, and its cells name folders")
    if name in _LABELS:
        return Guess(f"label_{name}", column, "its name")
    return None


def _one_text(found: list[Guess]) -> list[Guess]:
    """A whole report rules out its sections and a file with it; of several whole ones the first stays."""
    texts = [guess for guess in found if guess.ours == "report_text"]
    if not texts:
        return found
    keep = texts[0]
    return [g for g in found if g is keep or not (g.ours == "report_text" or g.ours.startswith("section_"))]


class Classes(NamedTuple):
    """How the words of a label become numbers. note: the mapping, "" for numbers; numbers: word -> text of a number."""

    numbers: dict[str, str]
    note: str


_YES = {"yes": "1", "true": "1", "positive": "1", "pos": "1", "present": "1", "y": "1", "t": "1", "ja": "1", "sí": "1"}
_NO = {"no": "0", "false": "0", "negative": "0", "neg": "0", "absent": "0", "n": "0", "f": "0", "nein": "0"}


def classes_of(name: str, cells: Iterable[str]) -> Classes | None:
    """Numbers for the words of a label column; None where they are no classes: one, more than 20, or lists."""
    words = sorted({cell.strip() for cell in cells if cell.strip().lower() not in _NEVER})
    try:
        return Classes({word: f"{float(word):g}" for word in words}, "")
    except ValueError:
        pass
    if {word.lower() for word in words} <= {*_YES, *_NO, "1", "0"}:
        known = {**_YES, **_NO, "1": "1", "0": "0"}
        return Classes({word: known[word.lower()] for word in words}, "")
    if not 2 <= len(words) <= 20 or any(";" in word or "|" in word for word in words):
        return None
    numbers = {word: str(place) for place, word in enumerate(words)}
    mapping = ", ".join(f"{place} = {word}" for word, place in numbers.items())
    return Classes(numbers, f"{name}: {mapping}")
