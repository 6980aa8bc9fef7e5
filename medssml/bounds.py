"""The bounds of a number that a user gives: checked before anything is read, and told with its key and the way out."""

from __future__ import annotations


def bounded(
    key: str,
    value: float | None,
    *,
    least: float | None = None,
    above: float | None = None,
    most: float | None = None,
    below: float | None = None,
) -> None:
    """Refuses a number outside its bounds; None, where a setting may be off, is none, and NaN lies in no bounds.

    Raises:
        ValueError: with the key, the value and the bounds.
    """
    if value is None:
        return
    inside = (
        value == value
        and (least is None or value >= least)
        and (above is None or value > above)
        and (most is None or value <= most)
        and (below is None or value < below)
    )
    if not inside:
        ends = {"{} or more": least, "above {}": above, "at most {}": most, "below {}": below}
        told = " and ".join(words.format(f"{end:g}") for words, end in ends.items() if end is not None)
        raise ValueError(f"{key} is {value}; fix: {told}")
