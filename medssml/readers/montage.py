"""Which channels of a recording are read: scalp electrodes, each once, of one kind and where possible against one reference."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from medssml.readers.channels import canonical_derivation, referential
from medssml.readers.errors import Flag, Note, ReadError
from medssml.readers.source import Channel

_BIOSEMI = re.compile(r"A(?:[3-9]|[12][0-9]|3[0-2])|[BDEGH](?:[1-9]|[12][0-9]|3[0-2])")  # C1, F1 are 10-10
_RENAME = "rename the channels to the 10-20 system, or name another recording"
#: Hz below which a channel beside faster ones is a trend of something else, whatever its name.
_SLOW_HZ = 32.0


class Picked(NamedTuple):
    """rows: of the file's channels. names: the 10-10 names. references: what each is measured against, none if bipolar.

    notes: what was left out, and that there are several references. left_out: (label, why).
    """

    rows: tuple[int, ...]
    names: tuple[str, ...]
    references: tuple[str, ...]
    notes: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]


class _Electrode(NamedTuple):
    row: int
    name: str
    reference: str


def pick(channels: Sequence[Channel], path: Path) -> Picked:
    """The scalp channels among `channels`; what is left out is noted by label.

    Raises:
        ReadError: none of them can be read, or the BioSemi layout, in which A1 and A2 are no ears.
    """
    if sum(_BIOSEMI.fullmatch(channel.label) is not None for channel in channels) > 4:
        reason = "names its channels by the BioSemi layout (A1, A2, ... B1), in which A1 and A2 are no ears"
        raise ReadError(path, reason, "rename the channels to the 10-20 system", code="content")
    electrodes = _electrodes(channels)
    reasons = _reasons(channels, electrodes)
    one, two = (
        [e for e in electrodes if ("-" in e.name) == bipolar and e.row not in reasons] for bipolar in (False, True)
    )
    if not one and not two:
        raise _nothing(channels, electrodes, reasons, path)
    # One kind alone: an average over electrodes and differences of them would be neither.
    few, most = (one, two) if len({e.name for e in two}) > len({e.name for e in one}) else (two, one)
    kept = _each_once(most)
    kinds = ("referential", "bipolar") if most is two else ("bipolar", "referential")
    reasons |= {e.row: f"{kinds[0]} beside {len(kept)} {kinds[1]} channels" for e in few}
    used = {e.name: e for e in kept}
    for e in most:
        if e is not used[e.name]:
            same = e.reference == used[e.name].reference
            reasons[e.row] = "recorded twice" if same else "recorded twice, here against another reference"
    notes = _notes(channels, reasons, {e.row for e in electrodes})
    if len({e.reference for e in kept}) > 1:
        notes.append(_several_references(kept))
    left_out = tuple((channels[row].label, reasons[row]) for row in sorted(reasons))
    references = () if most is two else tuple(e.reference for e in kept)
    return Picked(tuple(e.row for e in kept), tuple(e.name for e in kept), references, tuple(notes), left_out)


def _electrodes(channels: Sequence[Channel]) -> list[_Electrode]:
    """Channels that are called after an electrode or a derivation; P7-T7 is T7-P7 with its sign turned."""
    found: list[_Electrode] = []
    for row, channel in enumerate(channels):
        if electrode := referential(channel.label):
            found.append(_Electrode(row, electrode[0], electrode[1] or channel.reference))
        elif pair := canonical_derivation(channel.label):
            turned = "-".join(reversed(pair.split("-")))
            found.append(_Electrode(row, turned if any(e.name == turned for e in found) else pair, ""))
    return found


def _reasons(channels: Sequence[Channel], electrodes: Sequence[_Electrode]) -> dict[int, str]:
    """Why a channel is left out, by its row, as far as it alone tells."""
    named = {e.row for e in electrodes}
    usable = [channels[row].sfreq for row in named if not (channels[row].excluded or channels[row].fault)]
    fast = max(usable, default=0.0) >= _SLOW_HZ
    reasons = {}
    for row, channel in enumerate(channels):
        if channel.excluded:
            reasons[row] = channel.excluded
        elif row not in named:
            reasons[row] = "no scalp electrode"
        elif channel.fault:
            reasons[row] = channel.fault
        elif not channel.unit.is_voltage:
            reasons[row] = "states a unit that is no voltage"
        elif fast and channel.sfreq < _SLOW_HZ:
            reasons[row] = f"under {_SLOW_HZ:g} Hz beside faster channels"
    return reasons


def _each_once(electrodes: Sequence[_Electrode]) -> list[_Electrode]:
    """One channel per name: that against the reference which most channels have, else the first."""
    usual = Counter(e.reference for e in electrodes)
    best: dict[str, _Electrode] = {}
    for e in electrodes:
        if e.name not in best or usual[e.reference] > usual[best[e.name].reference]:
            best[e.name] = e
    return list(best.values())


def _notes(channels: Sequence[Channel], reasons: dict[int, str], electrodes: set[int]) -> list[str]:
    """One line per reason: a note where the file or the label says that it is no EEG, else a flag."""
    notes: list[str] = []
    for reason in dict.fromkeys(reasons.values()):
        rows = [row for row in sorted(reasons) if reasons[row] == reason]
        by_unit = all(not channels[row].unit.is_voltage for row in rows) and bool(electrodes.intersection(rows))
        shown = [
            f"{channels[row].label} ({channels[row].unit.text})" if by_unit else channels[row].label for row in rows
        ]
        line = f"left out, {reason}: {listed(shown)}"
        said = reason == "no scalp electrode" or all(channels[row].excluded for row in rows)
        notes.append(Note(line) if said else Flag(line, "left_out"))
    return notes


def _several_references(kept: Sequence[_Electrode]) -> Flag:
    groups: dict[str, list[str]] = {}
    for e in kept:
        groups.setdefault(e.reference or "the recorder's own", []).append(e.name)
    shown = "; ".join(f"{reference}: {listed(names)}" for reference, names in groups.items())
    return Flag(f"channels have {len(groups)} references ({shown}): no average over them is taken")


def _nothing(
    channels: Sequence[Channel], electrodes: Sequence[_Electrode], reasons: dict[int, str], path: Path
) -> ReadError:
    if not electrodes:
        first = ", ".join(channel.label for channel in channels[:4])
        return ReadError(
            path, f"holds no scalp electrode of the 10-10 system (first: {first})", _RENAME, code="content"
        )
    shown = listed([f"{channels[e.row].label}: {reasons[e.row]}" for e in electrodes])
    return ReadError(
        path, f"holds no scalp electrode that can be read ({shown})", "export the recording again", code="content"
    )


def listed(labels: Sequence[str]) -> str:
    """Up to eight labels, and how many more there are."""
    counts = Counter(labels)
    shown = [f"{label} x {n}" if n > 1 else label for label, n in list(counts.items())[:8]]
    return ", ".join(shown) + (f" and {len(counts) - 8} more" if len(counts) > 8 else "")
