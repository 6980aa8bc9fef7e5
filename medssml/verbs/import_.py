"""medssml import: the manifest of a published layout, and an account of every source row."""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from medssml.foreign_text import collecting
from medssml.runs import console
from medssml.schema import nearest

if TYPE_CHECKING:
    from medssml.importers.write_manifest import Imported

_LINES_SHOWN = 10


def import_(
    name: str,
    root: Path,
    *,
    out: Path,
    rows: Literal["study", "file"] = "study",
    column: Sequence[str] = (),
    reports: Path | None = None,
    uncertain: Literal["empty", "negative", "positive"] = "empty",
    unmentioned: Literal["empty", "negative"] = "empty",
    val_fraction: float = 0.1,
    write_into: Path | None = None,
    min_slices: int = 8,
    table: Sequence[str] = (),
    lab_days: float = 7.0,
    max_lost: float | None = None,
    allow_outside: bool = False,
) -> dict[str, object]:
    """The manifest of what lies under a folder, and import_report.csv beside it: what became of every source row.

    Layouts: docs/importers.md says what each one expects. A split that the dataset publishes is kept.

    Args:
        name: the layout, such as mimic-cxr, ct-rate, tueg, bids-eeg, dicom, fhir or csv.
        root: the dataset's folder; for csv, the table.
        out: the manifest to write; its paths are relative to its own folder where the root lies in it, else to the root.
        rows: study is one row per study, with further files in other_files; file is one row per file.
        column: for tables whose columns are guessed, MANIFEST=SOURCE, such as subject_id=MRN; may be given several times.
        reports: for dicom, a table or FHIR export with reports, joined by accession number or study.
        uncertain: what a label that the source calls uncertain becomes.
        unmentioned: what a label that the report does not mention becomes.
        val_fraction: share of the training subjects that validate where the official split has no validation part.
        write_into: folder for files that have to be written: links to slices of mixed folders, converted volumes.
        min_slices: a CT series of fewer slices is a localizer.
        table: columns of numbers such as laboratory values, which become table_<name>; the same as --column table_crp=CRP.
        lab_days: for fhir and its reports, most days that a laboratory value may be older than the report.
        max_lost: share of the rows of a table, or of the files, that may be lost, default 0.1; 1 accepts any loss, whole tables
            too.
        allow_outside: accept links that leave the root.

    Returns:
        the manifest, the report and what they hold.

    Raises:
        medssml.importers.LayoutError: the folder is not of this layout. medssml.importers.LostError: more is lost than may
            be; no manifest is written. KeyError: no such layout.
    """
    from medssml.importers import layout_named
    from medssml.importers.study import Options, slug
    from medssml.importers.write_manifest import import_layout

    if not lab_days > 0:
        raise ValueError(f"--lab-days is {lab_days:g}; fix: more than 0")
    if max_lost is not None and not 0 <= max_lost <= 1:
        raise ValueError(f"--max-lost is {max_lost:g}; fix: a share, 0 to 1")
    columns = _values(table, slug) | _columns(column)
    options = Options(rows, uncertain, unmentioned, val_fraction, columns, reports, write_into, min_slices, lab_days)
    if max_lost is not None:
        options = replace(options, max_lost=max_lost)
    with collecting(name_files=True) as heard:
        done = import_layout(
            layout_named(name), Path(root), Path(out), options, allow_outside=allow_outside, progress=_progress
        )
    _show(done)
    for line in heard[:_LINES_SHOWN]:
        console.say(f"said by a library: {line}")
    if len(heard) > _LINES_SHOWN:
        console.say(f"and {len(heard) - _LINES_SHOWN:,} more of these; medssml check lists them by file")
    return {
        "manifest": str(done.manifest),
        "report": str(done.report),
        "data_root": str(done.data_root),
        "studies": done.studies,
        "subjects": done.subjects,
        "coverage": done.coverage,
        "source_rows": done.lines,
        "notes": list(done.notes),
    }


def own_help(words: Sequence[str]) -> tuple[str, bool]:
    """`medssml import --help`: the layouts, a line each; with a NAME, what that one expects, and then the flags.

    Returns:
        text, and whether the flags follow.

    Raises:
        KeyError: no such layout.
    """
    known = _listed()
    if not words:
        width = max(map(len, known))
        lines = [f"  {name.ljust(width)}  {one.title}: {one.expects}" for name, one in known.items()]
        usage = "usage: medssml import NAME ROOT --out manifest.csv [FLAGS]\n\nNAME is one of:"
        return "\n".join([usage, *lines, "", "medssml import NAME --help shows the flags"]), False
    name = words[0].strip().lower().replace("_", "-")
    meant = {alias: own for own, one in known.items() for alias in (own, *one.aliases)}
    if name not in meant:
        raise KeyError(f"no layout {words[0]!r}{nearest(name, meant)}")
    one = known[meant[name]]
    return f"{one.title}\nexpects: {one.expects}\n", True


class _Listed(NamedTuple):
    """What the help says of a layout."""

    title: str
    expects: str
    aliases: tuple[str, ...]


def _listed() -> dict[str, _Listed]:
    """Name -> what is said of it, of every layout: read from the source, as importing them takes seconds."""
    found = {}
    for file in (Path(__file__).parent.parent / "importers").glob("*.py"):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LAYOUTS":
                for layout in node.value.elts if isinstance(node.value, ast.Tuple) else ():
                    arguments = layout.args  # type: ignore[attr-defined]
                    name, title, expects = (ast.literal_eval(word) for word in arguments[:3])
                    aliases = ast.literal_eval(arguments[5]) if len(arguments) > 5 else ()
                    found[name] = _Listed(title, expects, aliases)
    return dict(sorted(found.items()))


def _progress(files: int) -> None:
    if files % 10_000 == 0:
        console.say(f"{files:,} files looked into")


def _values(names: Sequence[str], slug: Callable[[str], str]) -> dict[str, str]:
    """table_<name> -> the column; two columns of one name would be one."""
    found: dict[str, str] = {}
    for name in [names] if isinstance(names, str) else names:
        if (other := found.setdefault(f"table_{slug(name)}", name)) != name:
            raise ValueError(
                f"--table {other!r} and {name!r} would both be table_{slug(name)}; fix: --column table_NAME={name}"
            )
    return found


def _columns(pairs: Sequence[str]) -> dict[str, str]:
    pairs = [pairs] if isinstance(pairs, str) else pairs
    found = {}
    for pair in pairs:
        ours, mark, theirs = pair.partition("=")
        if not mark or not ours.strip() or not theirs.strip():
            raise ValueError(f"--column {pair!r}: expected MANIFEST=SOURCE; fix: for example --column subject_id=MRN")
        found[ours.strip()] = theirs.strip()
    return found


def _show(done: Imported) -> None:
    """What was imported, what was left out and why, and what was decided."""
    splits = [name for name in done.coverage if name != "all"]
    rows = [
        (pattern or "(none)", count, *(done.coverage[split].get(pattern, 0) for split in splits))
        for pattern, count in done.coverage["all"].items()
    ]
    console.table(rows, ("modalities", "studies", *splits))
    console.say("")
    for note in done.notes:
        console.say(f"note: {note}")
    imported, left_out = done.lines["imported"], done.lines["left out"]
    console.say(
        f"{done.studies:,} studies of {done.subjects:,} subjects; of {imported + left_out:,} source rows and files"
    )
    console.say(f"{imported:,} imported, {left_out:,} left out{':' * bool(done.reasons)}")
    for reason, count in done.reasons[:12]:
        console.say(f"  {count:>9,} x {reason}")
    if len(done.reasons) > 12:
        console.say(f"  ... and {len(done.reasons) - 12} more reasons")
    console.say(f"every one of them is in {done.report}")
    console.say(f"written: {done.manifest}; next: {shlex.join(_next(done))}")


def _next(done: Imported) -> list[str]:
    """The command that checks the manifest, from where this one was given."""
    root = [] if done.data_root.resolve() == done.manifest.parent.resolve() else ["--data-root", str(done.data_root)]
    outside = ["--allow-outside"] if done.outside else []
    return ["medssml", "check", str(done.manifest), *root, *outside]
