"""`medssml report`: one offline HTML page of a run folder."""

from __future__ import annotations

from pathlib import Path


def report(run: Path, *, out: Path | None = None) -> Path:
    """One HTML file that shows what a run folder holds, and needs nothing else to be read.

    Args:
        run: folder that pretrain, finetune, evaluate or impact wrote; folders below it are looked through too.
        out: the file; default report.html in the run folder.

    Returns:
        the file.
    """
    from medssml.reports import write_report

    return write_report(run, out)
