"""Reports: HTML and figures, from result files only."""

from __future__ import annotations

from medssml.reports.page import SECTIONS, write_report
from medssml.reports.results import Results, read_results

__all__ = ["SECTIONS", "Results", "read_results", "write_report"]
