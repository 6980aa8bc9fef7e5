"""Published layouts -> manifest. A layout is one file of this package with `LAYOUTS`; nothing else has to know it."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from functools import cache

from medssml.importers.account import LayoutError, LostError
from medssml.importers.study import Layout

__all__ = ["Layout", "LayoutError", "LostError", "layout_named", "layouts"]


@cache
def layouts() -> dict[str, Layout]:
    """Name -> layout, of every file of this package that has some."""
    found: dict[str, Layout] = {}
    for module in sorted(info.name for info in pkgutil.iter_modules(__path__)):
        for layout in getattr(importlib.import_module(f"{__name__}.{module}"), "LAYOUTS", ()):
            if layout.name in found:
                raise ValueError(f"two layouts are called {layout.name!r}")
            found[layout.name] = layout
    return found


def layout_named(name: str) -> Layout:
    """The layout of this name, or of which it is another name.

    Raises:
        KeyError: no such layout, with the nearest.
    """
    known = {alias: layout for layout in layouts().values() for alias in (layout.name, *layout.aliases)}
    wanted = name.strip().lower().replace("_", "-")
    if wanted not in known:
        near = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise KeyError(f"no layout {name!r}{hint} fix: give one of {', '.join(sorted(layouts()))}")
    return known[wanted]
