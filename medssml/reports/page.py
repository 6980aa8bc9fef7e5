"""The report: one HTML file that needs nothing else, made from the result files of a run."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from medssml import provenance
from medssml.files import write_text
from medssml.reports import (
    alignment_section,
    impact_section,
    run_sections,
    task_sections,
    transfer_section,
    zero_shot_section,
)
from medssml.reports.blocks import Block, Judged, Section
from medssml.reports.glossary import glossary
from medssml.reports.results import WRITTEN_BY, Results, read_results
from medssml.reports.verdict import verdicts

log = logging.getLogger(__name__)

#: The sections in order: anchor, title, the files that it needs, and what makes it.
SECTIONS: tuple[tuple[str, str, tuple[str, ...], Callable[[Results], Section | None]], ...] = (
    ("brief", "In brief", ("gain.json", "impact.json", "metrics.json"), task_sections.in_brief),
    ("studies", "Studies", ("presence.json",), run_sections.studies),
    ("learning", "Learning", ("history.csv",), run_sections.learning),
    ("embedding", "Embedding map", ("embedding_map.csv",), run_sections.embedding),
    ("retrieval", "Retrieval", ("metrics.json", "retrieval.json"), run_sections.retrieval),
    ("zero-shot", "Zero-shot", ("metrics.json",), zero_shot_section.zero_shot),
    ("performance", "Performance for every missing pattern", ("metrics.json",), task_sections.performance),
    ("transductive", "Aligned sites (transductive)", ("metrics.json",), alignment_section.alignment),
    ("calibration", "Calibration", ("metrics.json",), task_sections.calibration),
    ("impact", "Impact of each modality", ("impact.csv", "impact.json"), impact_section.impact),
    ("transfer", "Transfer between modalities", ("transfer_gain.json",), transfer_section.transfer),
    ("problems", "Data problems", ("problems.csv",), run_sections.problems),
    ("protocol", "Protocol and configuration", ("config.yaml",), run_sections.protocol),
)

#: Those that only a flag of the verb brings: nothing is missing where it was not given.
ON_REQUEST = ("transductive",)


def write_report(run: str | Path, out: str | Path | None = None, *, only: Sequence[str] | None = None) -> Path:
    """Writes the report of a run folder.

    Args:
        run: folder with result files, in itself or in folders below it.
        out: the file; default report.html in `run`.
        only: anchors of the sections to write, such as ["impact"], from their own files in `run` itself; all by default.

    Returns:
        The file.

    Raises:
        ValueError: no result file in `run`, or a section that there is not.
    """
    folder = Path(run)
    path = folder / "report.html" if out is None else Path(out)
    names = None if only is None else _files_of(only)
    text = render(read_results(folder, names), folder.resolve().name, only=only)
    return write_text(path, text)


def _files_of(only: Sequence[str]) -> list[str]:
    known = [anchor for anchor, *_ in SECTIONS]
    unknown = [anchor for anchor in only if anchor not in known]
    if unknown:
        raise ValueError(f"no section {unknown}; known: {', '.join(known)}")
    return [name for anchor, _, files, _ in SECTIONS if anchor in only for name in files] + [provenance.FILE]


def render(results: Results, title: str, *, only: Sequence[str] | None = None) -> str:
    """The page as text; a section whose files are missing is named in a note and left out."""
    sections, missing = [], []
    for anchor, name, files, make in SECTIONS:
        if only is not None and anchor not in only:
            continue
        section = _made(make, results, name)
        if section is not None:
            sections.append(section)
        elif only is None and anchor not in ON_REQUEST:
            missing.append((name, files[-1], WRITTEN_BY[files[-1]]))

    said = Judged([(verdict.name, verdict.mark, verdict.text) for verdict in verdicts(results)])
    facts = task_sections.facts(results) if only is None else None
    return html(title, sections, missing, facts, verdict=said if said.items else None, origin=_origin(results))


def _origin(results: Results) -> list[str]:
    """What the last verb of the run's own folder was, or of the folders below."""
    files = results.of(provenance.FILE)
    entries: dict[str, Any] = files.get("") or next(iter(files.values()), {})
    known = [entry for entry in entries.values() if isinstance(entry, dict)]
    return provenance.said(max(known, key=lambda entry: str(entry.get("date")))) if known else []


def html(
    title: str,
    sections: Sequence[Section],
    missing: Sequence[tuple[str, str, str]] = (),
    facts: Block | None = None,
    *,
    verdict: Block | None = None,
    origin: Sequence[str] = (),
    about: str = "Report of a run.",
    made_from: str = " from the result files of this run",
) -> str:
    """Sections as a page.

    Args:
        title, sections: of the page.
        missing: (section, file, verb that writes it).
        facts: shown under the title.
        verdict: what was learned, before everything else.
        origin: when, by which version, from which command and seed.
        about: a sentence under the title.
        made_from: the end of "Made by medssml", in the last line.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    import medssml

    environment = Environment(
        loader=PackageLoader("medssml.reports", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    template = environment.get_template("report.html.j2")
    return template.render(
        title=title,
        sections=[*sections, glossary()],
        verdict=verdict,
        origin=list(origin),
        missing=missing,
        facts=facts,
        about=about,
        made_from=made_from,
        version=medssml.__version__,
    )


def _made(make: Callable[[Results], Section | None], results: Results, name: str) -> Section | None:
    """The section, or None where a result file is not as this version writes it: the others are still worth reading."""
    try:
        return make(results)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        log.warning("section %r left out of the report: a result file is not as expected (%r)", name, error)
        return None
