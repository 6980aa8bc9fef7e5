"""What every code of a finding means, and what becomes of the study: the one place that decides.

Whoever finds something names its code; nobody but this table says how grave it is.
"""

from __future__ import annotations

from typing import NamedTuple

#: The gravest first.
LEVELS = {
    "refused": "the table is wrong: training does not start",
    "quarantined": "the study is left out",
    "flagged": "kept; a judgement was made, or something is odd: look at it",
    "fixed": "put right as the file or its standard says: no value could change",
    "note": "worth knowing; asks nothing of anybody",
}
#: What to do about a finding that says no better.
FIXES = {"flagged": "look at the file", "fixed": "nothing to do", "note": "nothing to do"}


class Code(NamedTuple):
    """level: one of `LEVELS`. meaning: for the documents. passes: in which of the passes of a check it is found."""

    level: str
    meaning: str
    passes: str = "both"


CODES: dict[str, Code] = {
    "table": Code(
        "refused", "empty, repeated or mangled id, subject in two splits, unusable label, path out of the root"
    ),
    "missing": Code("quarantined", "no such file"),
    "empty": Code("quarantined", "0 bytes"),
    "permission": Code("quarantined", "may not be read"),
    "format": Code("quarantined", "another format than the column's"),
    "truncated": Code("quarantined", "fewer bytes than the header declares, with both figures"),
    "damaged": Code("quarantined", "a checksum or the structure does not match", "deep (PNG, gzip), both (SET)"),
    "too_large": Code("quarantined", "declares more than 2 GiB; nothing is allocated"),
    "geometry": Code(
        "quarantined",
        "CT: singular, sheared or contradictory affine; gap, repeated position, varying spacing, gantry tilt, with the figure",
    ),
    "mixed": Code("quarantined", "several series, patients, volumes, pictures or reports in one place"),
    "units": Code("quarantined", "CT values that cannot be HU: an 8-bit window, an offset, a rescaled volume", "deep"),
    "content": Code(
        "quarantined",
        "nothing usable: NaN voxels, a constant picture, no scalp electrode, flat channels alone",
        "deep (EEG channels: both)",
    ),
    "codec": Code("quarantined", "compressed in a way for which no codec is installed"),
    "outside": Code("quarantined", "a link or a name inside the file that leads out of its folder"),
    "unreadable": Code("quarantined", "the decoder failed; its message is quoted"),
    "budget": Code("quarantined", "took more time or memory than one file may"),
    "leak": Code("flagged", "the content of a file of another split", "both, copies that only look the same: deep"),
    "duplicate": Code(
        "flagged", "the content of a file of another subject", "both, copies that only look the same: deep"
    ),
    "rescaled": Code("flagged", "values were multiplied by judgement: what they were, and by what", "deep"),
    "resampled": Code("flagged", "values were brought to another rate", "deep"),
    "reread": Code("flagged", "values were read otherwise than the file states them, or what was unclear was guessed"),
    "assumed": Code("flagged", "the file does not state it: what was taken in its place"),
    "joined": Code("flagged", "parts were joined over a gap"),
    "cut": Code("flagged", "bits or bytes that are in use were cut off"),
    "left_out": Code("flagged", "channels, slices or other parts were left out by judgement"),
    "odd": Code("flagged", "what a reader noticed and no other code says"),
    "implausible": Code(
        "flagged", "what was read looks unlike its kind: the figure and its limit", "deep (reports: both)"
    ),
    "library": Code("flagged", "a library that reads the file warned: its name and its words"),
    "size": Code("flagged", "outside the usual range"),
    "spacing": Code("flagged", "outside the usual range"),
    "rate": Code("flagged", "outside the usual range"),
    "length": Code("flagged", "outside the usual range"),
    "identifiers": Code(
        "flagged",
        "a report has spans that look like dates, names, phone numbers or ids; how many, never what; or a column carries "
        "names, dates of birth, record numbers, addresses ([privacy](privacy.md))",
    ),
    "spelling": Code("flagged", "ids that may be one in two spellings: zeros, capitals, signs, `.0`; with both rows"),
    "rounded_ids": Code("flagged", "long ids that end as numbers do which a spreadsheet or floats have rounded"),
    "one_subject": Code(
        "flagged", "all studies, or most of many, or those of a word such as ANONYMOUS, are of one subject"
    ),
    "no_modality": Code("flagged", "a row without any file or text"),
    "no_reader": Code("flagged", "a modality that is not named after ct, xray, eeg or report"),
    "unused": Code("flagged", "a column that holds file names and is no modality's"),
    "non_finite": Code("flagged", "loss or gradient of a batch with this study was not finite", "training"),
    "fixed": Code("fixed", "what a reader put right without a choice"),
    "saved": Code("fixed", "how a table was saved: encoding, separator, names of columns in capitals or with blanks"),
    "template": Code(
        "note", "a short report that is another subject's in another split", "both, nearly the same: deep"
    ),
    "several": Code(
        "note", "one line per modality: subjects that have it more than once; count subjects in statistics of your own"
    ),
    "noted": Code("note", "what a reader noticed and need not be changed"),
}


def level_of(code: str) -> str:
    """What becomes of a study with a finding of `code`; what is not in the table is to be looked at."""
    return CODES[code].level if code in CODES else "flagged"


def fix_of(code: str) -> str:
    """What to do about a finding of `code` that says no better."""
    return FIXES.get(level_of(code), "look at the file")
