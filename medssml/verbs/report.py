"""`medssml report`: one offline HTML page of a run folder."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, *, out: Path | None = None) -> Path:
    """One HTML file that shows what a run folder holds, and needs nothing else to be read.

    Where the run was tracked, the page joins it in MLflow.

    Args:
        run: folder that pretrain, finetune, evaluate or impact wrote; folders below it are looked through too.
        out: the file; default report.html in the run folder.

    Returns:
        the file.

    Raises:
        ValueError: no such folder, or no result file in it.
    """
    from medssml.files import require_ending
    from medssml.reports import write_report
    from medssml.reports.results import WRITTEN_BY, read_results
    from medssml.runs import console
    from medssml.tracking import add_artifact

    require_ending("--out", out, ".html", ".htm")
    page = write_report(run, out)
    found = read_results(run)
    shown = {name: sorted(folder or "." for folder in found.of(name)) for name in WRITTEN_BY if found.of(name)}
    console.tell({"page": str(page), "shows": shown})
    add_artifact(run, page)
    return page
