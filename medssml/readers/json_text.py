"""JSON -> Python values that every file, log and tokenizer can hold."""

from __future__ import annotations

import json
from typing import Any


def json_value(text: str | bytes) -> Any:
    """As `json.loads`; an escape that is half of a character becomes U+FFFD, as in text that is cut inside one.

    JSON may say `"\\ud83e"` alone, where a system cut an emoji in two; UTF-8 cannot.

    Raises:
        ValueError, RecursionError: as `json.loads`.
    """
    value = json.loads(text)
    halves = "\\ud" in text.lower() if isinstance(text, str) else b"\\ud" in text.lower()
    return _mended(value) if halves else value


def _mended(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, list):
        return [_mended(item) for item in value]
    if isinstance(value, dict):
        return {_mended(name): _mended(item) for name, item in value.items()}
    return value
