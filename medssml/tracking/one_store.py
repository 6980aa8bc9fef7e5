"""One MLflow store for several runs, so that some can stand below another."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medssml.tracking.store import URI_VARIABLE, store_address


@contextmanager
def one_store(folder: Path) -> Iterator[None]:
    """Inside, all runs are tracked in the store of `folder`, or in that of the environment where it names one."""
    if os.environ.get(URI_VARIABLE):
        yield
        return
    os.environ[URI_VARIABLE] = store_address(folder)
    try:
        yield
    finally:
        del os.environ[URI_VARIABLE]
