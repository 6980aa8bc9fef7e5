"""Hooks of `mkdocs build` (mkdocs.yml): draws the figures of the gallery; none is kept in the repository.

A page shows one by a line `<!-- figure: NAME words for whoever cannot see it -->`, with a NAME of `gallery.FIGURES`.
"""

from __future__ import annotations

import importlib
import io
import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

from medssml.reports.figures import STYLE

MARK = re.compile(r"<!-- figure: (\w+) (.+?) -->")
FOLDER = "assets/gallery"


def figures() -> dict[str, Callable[[], Figure]]:
    """Name -> what draws it. Imported when a page asks for one, as MONAI takes seconds."""
    beside = str(Path(__file__).resolve().parent)
    if beside not in sys.path:
        sys.path.insert(0, beside)
    return importlib.import_module("gallery").FIGURES


def drawn(name: str) -> str:
    """The SVG of a figure, the same at every build."""
    stream = io.StringIO()
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name, "svg.fonttype": "path"}):
        figure = figures()[name]()
        figure.savefig(stream, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def on_files(files: Files, config: Any) -> Files:
    """Adds the figures that pages ask for.

    Raises:
        PluginError: a page asks for one that is not drawn.
    """
    wanted = {}
    for page in files.documentation_pages():
        wanted.update(dict.fromkeys((name for name, _ in MARK.findall(page.content_string)), page.src_uri))
    if wanted:
        known = figures()
        for name, where in wanted.items():
            if name not in known:
                raise PluginError(f"{where}: no figure {name!r}; fix: one of {', '.join(known)}")
            files.append(File.generated(config, f"{FOLDER}/{name}.svg", content=drawn(name)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Puts the figures in the places of their marks."""
    up = posixpath.relpath(FOLDER, posixpath.dirname(page.file.src_uri) or ".")
    return MARK.sub(lambda mark: f"![{mark.group(2)}]({up}/{mark.group(1)}.svg){{.figure}}", markdown)
