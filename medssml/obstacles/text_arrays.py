"""A report as a prepared study holds it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def text_array(text: str) -> NDArray[np.uint8]:
    """(L,) UTF-8, as `medssml.transforms.report.ReportText` prepares a text."""
    return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)
