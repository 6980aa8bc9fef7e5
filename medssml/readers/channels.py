"""Names of channels: the electrodes of the 10-10 system, pairs of them, and how recorders spell both.

A referential channel goes by its electrode (`Fp1`), a bipolar one by its derivation (`Fp1-F7`: the first minus the second).
"""

from __future__ import annotations

import re

CHANNELS: tuple[str, ...] = (
    "",
    *"Nz Fp1 Fpz Fp2".split(),
    *"AF9 AF7 AF5 AF3 AF1 AFz AF2 AF4 AF6 AF8 AF10".split(),
    *"F9 F7 F5 F3 F1 Fz F2 F4 F6 F8 F10".split(),
    *"FT9 FT7 FC5 FC3 FC1 FCz FC2 FC4 FC6 FT8 FT10".split(),
    *"T9 T7 C5 C3 C1 Cz C2 C4 C6 T8 T10".split(),
    *"TP9 TP7 CP5 CP3 CP1 CPz CP2 CP4 CP6 TP8 TP10".split(),
    *"P9 P7 P5 P3 P1 Pz P2 P4 P6 P8 P10".split(),
    *"PO9 PO7 PO5 PO3 PO1 POz PO2 PO4 PO6 PO8 PO10".split(),
    *"O9 O1 Oz O2 O10 I1 Iz I2 A1 A2".split(),
)
"""Index 0 is padding; models store these indices, so names are only ever added at the end."""

AGAINST = 1000
"""The number of electrode i is i; that of the derivation i-j is i + AGAINST * j, so a model needs no row per pair."""

_CANONICAL = {name.upper(): name for name in CHANNELS if name}
_CANONICAL |= {"T3": "T7", "T4": "T8", "T5": "P7", "T6": "P8"}
_COMMON = "REF|REFERENCE|COM|COMMON"
_MEANS = "AVG|AVE|AVR|AV|AR|CAR|AVERAGE"
_EARLOBES = r"LE|LER|LINKED(?: ?EARS?)?|EARS?|AA|A1A2|\(?A1 ?\+ ?A2\)?(?:/2)?"
_MASTOIDS = r"LM|LINKED ?MASTOIDS|MASTOIDS|M1M2|\(?M1 ?\+ ?M2\)?(?:/2)?"
_SINGLE = "A1|A2|M1|M2|CLE|CS2|G[0-9]+|REF[0-9]+|V-?REF|NOSE|0V|BN|ORG"
_REFERENCES = "|".join((_COMMON, _MEANS, _EARLOBES, _MASTOIDS, _SINGLE))
_PREFIX = re.compile(r"^(?:EEG|POL)[ _:.-]*", re.IGNORECASE)
EARS = frozenset({"A1", "A2"})
"""Electrodes that lie on no scalp: references are tied to them, and no mean over electrodes takes them in."""
_AGAINST = re.compile(rf"[ _-]*(?:[-_/:]|\s)\s*\(?(?P<reference>{_REFERENCES})\)?(?:-[0-9]+)?$", re.IGNORECASE)
_GLUED = re.compile(r"(?<=[0-9Zz])(?P<reference>[AM][12])$", re.IGNORECASE)
_BIPOLAR = re.compile(r"^([A-Z]{1,3}[0-9]{0,2})\s*[-_]\s*([A-Z]{1,3}[0-9]{0,2})(?:-[0-9]+)?$", re.IGNORECASE)


def referential(label: str) -> tuple[str, str] | None:
    """(10-10 name, reference) of `label`, or None where it is no single scalp electrode; the reference as below.

    >>> [referential(s) for s in ("EEG FP1-REF", "C3-A2", "Cz", "O2M1", "Pz-(A1+A2)/2", "EEG T3-LE", "A2-A1", "Fp1-F7")]
    [('Fp1', ''), ('C3', 'A2'), ('Cz', ''), ('O2', 'M1'), ('Pz', 'LE'), ('T7', 'LE'), None, None]
    """
    name = _PREFIX.sub("", label.strip()).strip(" .")
    if name.upper() in _CANONICAL:
        return _CANONICAL[name.upper()], ""
    match = _AGAINST.search(name) or _GLUED.search(name)
    if match is None:
        return None
    active = name[: match.start()].strip(" .").upper()
    if re.fullmatch("[AM][12]", active) and re.fullmatch("[AM][12]", match["reference"].upper()):
        return None  # one ear against the other is no scalp electrode
    return (_CANONICAL[active], reference_name(match["reference"])) if active in _CANONICAL else None


def reference_name(text: str) -> str:
    """One name for what is one reference: "" for the recorder's own, LE for both ears, LM for both mastoids, AVG for a mean.

    >>> [reference_name(text) for text in ("Ref", "A1+A2", "linked ears", "average", "m2", "Cz")]
    ['', 'LE', 'LE', 'AVG', 'M2', 'CZ']
    """
    plain = text.strip().upper()
    for name, known in (("", _COMMON), ("AVG", _MEANS), ("LE", _EARLOBES), ("LM", _MASTOIDS)):
        if re.fullmatch(known, plain):
            return name
    return plain


def canonical_channel(label: str) -> str | None:
    """The 10-10 name of `label`, or None where it is no single scalp electrode.

    >>> [canonical_channel(s) for s in ("EEG FP1-REF", "Fc5.", "EEG T3", "EEG A2-A1", "ECG", "Fp1-F7")]
    ['Fp1', 'FC5', 'T7', None, None, None]
    """
    found = referential(label)
    return None if found is None else found[0]


def canonical_derivation(label: str) -> str | None:
    """The bipolar derivation of `label`, by 10-10 names, or None where it is no difference of two scalp electrodes.

    An ear or mastoid on the right of the hyphen is a reference, and the channel a referential one.

    >>> [canonical_derivation(s) for s in ("FP1-F7", "EEG Fpz-Cz", "T4-T6", "T8-P8-1", "C3-A2", "EEG FP1-REF", "A2-A1")]
    ['Fp1-F7', 'Fpz-Cz', 'T8-P8', 'T8-P8', None, None, None]
    """
    match = _BIPOLAR.match(_PREFIX.sub("", label.strip()).strip(" ."))
    if match is None or referential(label) is not None:
        return None
    pair = [_CANONICAL.get(part.upper()) for part in match.groups()]
    if None in pair or pair[0] == pair[1] or EARS.issuperset(pair):
        return None
    return f"{pair[0]}-{pair[1]}"


def channel_number(name: str) -> int:
    """What models and prepared studies know a channel by: its place in `CHANNELS`, or that of both electrodes.

    >>> channel_number("Fp1"), channel_number("Fp1-Nz"), [channel_name(n) for n in (2, 1002)]
    (2, 1002, ['Fp1', 'Fp1-Nz'])
    """
    first, _, second = name.partition("-")
    return CHANNELS.index(first) + AGAINST * CHANNELS.index(second)


def channel_name(number: int) -> str:
    """The inverse of `channel_number`."""
    second, first = divmod(number, AGAINST)
    return f"{CHANNELS[first]}-{CHANNELS[second]}" if second else CHANNELS[first]
