"""A study table that is refused: every reason with its row and column."""

from __future__ import annotations

from pathlib import Path


class ManifestError(ValueError):
    """A study table that is refused. `problems` holds (row, column, reason); row 1 is the header, None = whole file."""

    exit_code = 3

    def __init__(self, path: str | Path, problems: list[tuple[int | None, str | None, str]]) -> None:
        self.path = str(path)
        self.problems = problems
        super().__init__(self.path, problems)

    def __str__(self) -> str:
        lines = [f"{self.path}{_where(row, column)}: {reason}" for row, column, reason in self.problems[:10]]
        if len(self.problems) > 10:
            lines.append(f"... and {len(self.problems) - 10} more problems of this table")
        return "\n".join(lines)


def _where(row: int | None, column: str | None) -> str:
    parts = ([] if row is None else [f"row {row}"]) + ([] if column is None else [f"column {column!r}"])
    return ", " + ", ".join(parts) if parts else ""


def refuse(path: Path, row: int | None, column: str | None, reason: str) -> ManifestError:
    """The error of one problem."""
    return ManifestError(path, [(row, column, reason)])
