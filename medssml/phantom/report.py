"""The radiology report: a grammar whose only fact about a finding is its grade, in one of several wordings.

Each finding has a ladder of seven grades (`causes.GRADE_EDGES`), from plain negation over uncertainty to a gross
finding. FINDINGS states the grade of every finding; IMPRESSION repeats the grades from 3 up, so it adds no evidence.
The order of sentences, the wording within a grade and the filler are random. The EEG is never mentioned.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from medssml.phantom.causes import MENTIONED

LADDER: dict[str, tuple[tuple[str, ...], ...]] = {
    "effusion": (
        ("No pleural effusion.", "There is no pleural fluid.", "Costophrenic angles are sharp, no effusion."),
        ("No definite pleural effusion.", "No convincing pleural fluid is seen.", "Pleural effusion is unlikely."),
        (
            "Trace pleural fluid cannot be excluded.",
            "Minimal blunting of the costophrenic angles, trace effusion not excluded.",
            "Questionable trace pleural effusion.",
        ),
        ("Possible small pleural effusions.", "Probable small effusions.", "Small pleural effusions are suspected."),
        ("Small bilateral pleural effusions.", "Small effusions are present.", "Mild pleural fluid on both sides."),
        ("Moderate bilateral pleural effusions.", "Moderate pleural fluid is present.", "Moderate sized effusions."),
        (
            "Large bilateral pleural effusions.",
            "Extensive pleural fluid.",
            "Massive effusions with compressive atelectasis.",
        ),
    ),
    "cardiomegaly": (
        ("The heart is small.", "Small cardiac silhouette.", "The heart is slender."),
        ("Heart size is normal.", "Normal cardiac silhouette.", "No cardiomegaly."),
        (
            "Heart size is at the upper limit of normal.",
            "The cardiac silhouette is high normal.",
            "Heart size is upper normal.",
        ),
        ("Borderline heart size.", "Borderline cardiac silhouette.", "Equivocal cardiomegaly, possibly projectional."),
        ("Mild cardiomegaly.", "The heart is mildly enlarged.", "Mildly enlarged cardiac silhouette."),
        ("Moderate cardiomegaly.", "The heart is moderately enlarged.", "Moderately enlarged cardiac silhouette."),
        ("Severe cardiomegaly.", "The heart is massively enlarged.", "Gross enlargement of the cardiac silhouette."),
    ),
    "nodule": (
        ("No suspicious pulmonary nodule.", "No focal lung lesion.", "Lungs without nodule or mass."),
        ("Tiny granuloma, benign.", "Punctate calcified nodule, benign appearance.", "Tiny nodule of no concern."),
        (
            "Nodule of a few millimetres, likely benign.",
            "Small nodule, probably benign.",
            "Small nodule, malignancy unlikely.",
        ),
        ("Indeterminate nodule.", "Nodule of uncertain nature.", "Nodule, neither benign nor malignant features."),
        (
            "Nodule, malignancy cannot be excluded.",
            "Possibly malignant nodule.",
            "Nodule for which follow-up is advised.",
        ),
        ("Suspicious nodule.", "Nodule suspicious for malignancy.", "Worrisome nodule, biopsy is suggested."),
        ("Mass highly suspicious for carcinoma.", "Large mass, most likely malignant.", "Malignant appearing mass."),
    ),
}
"""Finding -> grade -> wordings. No wording occurs in two grades."""

_FILLER = (
    "No pneumothorax.", "The trachea is midline.", "Bones are unremarkable.", "Degenerative changes of the spine.",
    "Endotracheal tube in place.", "Central venous line in the superior vena cava.", "Nasogastric tube in situ.",
    "Hila are unremarkable.", "The aorta is tortuous.", "Upper abdomen unremarkable.",
)  # fmt: skip
_REASON = (
    "Shortness of breath.", "Respiratory failure.", "After cardiac arrest.", "Severe pneumonia, ventilated.",
    "Fever, intensive care.", "Routine follow-up in intensive care.", "Reduced consciousness.",
)  # fmt: skip
_CLEAR = ("No acute abnormality.", "No significant finding.", "Unremarkable for age.")


def report(grades: Mapping[str, int], age: float, female: bool, rng: np.random.Generator, brief: bool = False) -> str:
    """The text of a report with sections INDICATION, FINDINGS, IMPRESSION.

    Args:
        grades: finding -> grade, 0 to 6.
        age: years, for the indication.
        female: for the indication.
        rng: of the wording.
        brief: the graded findings alone.
    """
    sentences = [str(rng.choice(LADDER[finding][grade])) for finding, grade in grades.items()]
    if brief:
        return f"FINDINGS: {' '.join(sentences[index] for index in rng.permutation(len(sentences)))}\n"
    sentences += [str(text) for text in rng.choice(_FILLER, rng.integers(2, 5), replace=False)]
    findings = " ".join(sentences[index] for index in rng.permutation(len(sentences)))
    abnormal = [str(rng.choice(LADDER[finding][grade])) for finding, grade in grades.items() if grade >= MENTIONED]
    impression = " ".join(f"{n}. {text}" for n, text in enumerate(abnormal, 1)) or str(rng.choice(_CLEAR))
    who = f"{age:.0f}-year-old {'woman' if female else 'man'}"
    return f"INDICATION: {who}. {rng.choice(_REASON)}\n\nFINDINGS: {findings}\n\nIMPRESSION: {impression}\n"


def findings_of(text: str) -> dict[str, bool]:
    """Finding -> whether a text states it as at least possible (grade 3), of the findings that it states at all.

    For texts that a model wrote: case, punctuation and headings do not matter, and where a finding is stated twice the higher
    grade counts. A longer wording is no shorter one that it holds.
    """
    left = f" {' '.join(_plain(text))} "
    grades: dict[str, int] = {}
    for wording, finding, grade in _WORDINGS:
        if f" {wording} " in left:
            left = left.replace(f" {wording} ", " | ")
            grades[finding] = max(grade, grades.get(finding, 0))
    return {finding: grade >= MENTIONED for finding, grade in grades.items()}


def _plain(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())


_WORDINGS = sorted(
    (
        (" ".join(_plain(wording)), finding, grade)
        for finding, ladder in LADDER.items()
        for grade, wordings in enumerate(ladder)
        for wording in wordings
    ),
    key=lambda part: -len(part[0]),
)


def read_grades(text: str) -> dict[str, int]:
    """The grade of each finding that the FINDINGS section states: the inverse of `report`."""
    section = text.partition("FINDINGS:")[2].partition("IMPRESSION:")[0]
    grades: dict[str, int] = {}
    for finding, ladder in LADDER.items():
        for grade, wordings in enumerate(ladder):
            if any(f" {wording}" in section for wording in wordings):
                grades[finding] = grade
    return grades
