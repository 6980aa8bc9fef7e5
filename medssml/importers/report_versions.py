"""Reports of an export -> one text per study: which are versions of each other, which of them counts, and what is joined.

Two reports are of one study where patient and DICOM study agree, or patient, accession number and its issuer. They are
versions of each other where their codes agree as well; reports of two procedures of one study are both its text. What is newer
is decided by instants of one kind (issued, else effective), not by how they are written.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from medssml.importers.account import Account, Aside
from medssml.importers.moments import Moment, order
from medssml.importers.study import slug

_FINAL = ("final", "amended", "corrected", "appended", "modified")
_CHANGED = ("amended", "corrected", "appended", "modified")


class Stated(NamedTuple):
    """What tells the versions of a report apart, as the resource states it."""

    status: str = ""
    issued: Moment | None = None
    effective: Moment | None = None
    updated: Moment | None = None
    codes: frozenset[str] = frozenset()


class ReportEntry(NamedTuple):
    """A report and what ties it to a study. row: in the account; more: rows of other reports that are part of the text.

    uid: StudyInstanceUID. issuer: of the accession number. name: of the study, where it is not the uid, accession or id.
    """

    row: int
    report_id: str
    patient: str
    uid: str
    accession: str
    text: str
    procedure: str = ""
    sex: str = ""
    issuer: str = ""
    stated: Stated = Stated()
    more: tuple[int, ...] = ()
    name: str = ""

    @property
    def key(self) -> str:
        """What the study is called."""
        return self.name or self.uid or self.accession or self.report_id

    @property
    def when(self) -> Moment | None:
        """When it was issued, else made."""
        return self.stated.issued or self.stated.effective


def one_per_study(found: Sequence[ReportEntry], account: Account) -> list[ReportEntry]:
    """One entry per study with the text that counts; all others are accounted for."""
    studies = _named(_studies(found), account)
    chosen = []
    for entries in studies:
        kept = [_newest(versions, account) for versions in _versions(entries)]
        chosen.append(_joined(kept, entries, account))
    return chosen


def _studies(found: Sequence[ReportEntry]) -> list[list[ReportEntry]]:
    """The reports of each study."""
    studies: list[list[ReportEntry]] = []
    by_key: dict[tuple[str, str, str], list[list[ReportEntry]]] = defaultdict(list)
    for entry in found:
        keys = [(entry.patient, kind, value) for kind, value in _keys(entry) if value]
        mine = next((study for key in keys for study in by_key[key] if _one_study(study, entry)), None)
        if mine is None:
            mine = []
            studies.append(mine)
        mine.append(entry)
        for key in keys:
            if not any(study is mine for study in by_key[key]):
                by_key[key].append(mine)
    return studies


def _keys(entry: ReportEntry) -> list[tuple[str, str]]:
    """An id of the report is what it goes by where nothing else is stated."""
    own = "" if entry.uid or entry.accession else entry.report_id
    return [("uid", entry.uid), ("accession", entry.accession), ("id", own)]


def _one_study(study: Sequence[ReportEntry], entry: ReportEntry) -> bool:
    """No other DICOM study, no other issuer of the accession number; what is not stated contradicts nothing."""
    uids = {other.uid for other in study if other.uid}
    if entry.uid and uids:
        return entry.uid in uids
    issuers = {other.issuer for other in study if other.issuer}
    return not entry.issuer or not issuers or entry.issuer in issuers


def _named(studies: list[list[ReportEntry]], account: Account) -> list[list[ReportEntry]]:
    """Studies with names of their own; those that claim one DICOM study for two patients are left out."""
    owners: dict[str, set[str]] = defaultdict(set)
    for study in studies:
        for uid in {entry.uid for entry in study if entry.uid}:
            owners[uid].add(study[0].patient)
    kept = []
    for study in studies:
        if any(len(owners[entry.uid]) > 1 for entry in study if entry.uid):
            for entry in study:
                reason = "its StudyInstanceUID is that of another patient as well"
                account.leave_out(entry.row, reason, study_id=entry.key)
        else:
            kept.append(study)
    names = Counter(_name(study) for study in kept)
    shared = Counter((_name(study), _issuer(study)) for study in kept)
    renamed = []
    for study in kept:
        name, issuer = _name(study), _issuer(study)
        if names[name] > 1:
            alone = issuer and shared[name, issuer] == 1
            own = slug(issuer.rpartition("/")[2]) if alone else study[0].patient
            account.note(
                "accession numbers or ids that several patients or issuers share have the issuer or patient added"
            )
            name = f"{name}_{own}"
        renamed.append([entry._replace(name=name) for entry in study])
    return renamed


def _name(study: Sequence[ReportEntry]) -> str:
    best = next((entry for entry in study if entry.uid), None) or next((e for e in study if e.accession), study[0])
    return best.key


def _issuer(study: Sequence[ReportEntry]) -> str:
    return next((entry.issuer for entry in study if entry.issuer), "")


def _versions(study: Sequence[ReportEntry]) -> list[list[ReportEntry]]:
    """The reports of each procedure; one that states none is a version of the first."""
    groups: list[list[ReportEntry]] = []
    for entry in sorted(study, key=lambda entry: not entry.stated.codes):
        mine = entry.stated.codes
        group = next((group for group in groups if not mine or any(mine & other.stated.codes for other in group)), None)
        if group is None:
            groups.append(group := [])
        group.append(entry)
    return [sorted(group, key=lambda entry: entry.row) for group in groups]


def _newest(versions: Sequence[ReportEntry], account: Account) -> ReportEntry:
    best = versions[0]
    for entry in versions[1:]:
        later, why = _compared(entry, best)
        loser, best = (best, entry) if later > 0 else (entry, best)
        account.leave_out(loser.row, Aside(why), study_id=loser.key)
    return best


def _compared(entry: ReportEntry, other: ReportEntry) -> tuple[int, str]:
    """(more than 0 where `entry` counts, why the one that does not is left out)."""
    mine, theirs = entry.stated, other.stated
    final = (mine.status in _FINAL) - (theirs.status in _FINAL)
    if final:
        return final, "a final report of the study was taken"
    pairs = ((mine.issued, theirs.issued), (mine.effective, theirs.effective), (mine.updated, theirs.updated))
    times = [(one, two) for one, two in pairs if one is not None and two is not None]
    newer = order(*times[0]) if times else 0
    if newer:
        return newer, "a newer report of the study was taken"
    changed = (mine.status in _CHANGED) - (theirs.status in _CHANGED)
    if changed:
        return changed, "a corrected report of the study was taken"
    if entry.text == other.text:
        return -1, "the same text is in another report of the study"
    newer = next((found for one, two in times[1:] if (found := order(one, two))), 0)
    if newer:
        return newer, "a newer report of the study was taken"
    return -1, "another report of the study was taken; which is newer is not stated"


def _joined(kept: Sequence[ReportEntry], versions: Sequence[ReportEntry], account: Account) -> ReportEntry:
    """The reports of several procedures of one study as one, in the order of their time; what any version says of the study
    holds for it."""
    texts: dict[str, list[ReportEntry]] = defaultdict(list)
    for entry in sorted(kept, key=lambda entry: entry.when.at if entry.when is not None else 0.0):
        texts[entry.text].append(entry)
    first, *others = [entry for entries in texts.values() for entry in entries]
    if len(texts) > 1:
        account.note("studies with reports of several procedures have all of their texts, one after the other")
    procedures = dict.fromkeys(entry.procedure for entry in (first, *others) if entry.procedure)
    return first._replace(
        text="\n".join(texts),
        procedure="; ".join(procedures) or next((entry.procedure for entry in versions if entry.procedure), ""),
        uid=next((entry.uid for entry in versions if entry.uid), ""),
        accession=next((entry.accession for entry in versions if entry.accession), ""),
        more=tuple(entry.row for entry in others),
    )
