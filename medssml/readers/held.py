"""The place of a file for what a caller holds in memory."""

from __future__ import annotations

from typing import Any, NamedTuple


class Held(NamedTuple):
    """What a caller holds in memory, in the place of a file; `medssml.readers.arrays` makes its value.

    value: a `Volume`, a `Radiograph` or a `Recording`, as a reader returns it.
    """

    value: Any
