"""history.csv: one row per look at the run, one column per number, in the run folder for every curve of the report."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from medssml.files import csv_lines, write_text

#: Columns that every row has, before the metrics.
KEYS = ("step", "epoch", "seconds")


class History:
    """Rows of metrics, written in blocks; columns that turn up later are added to the file.

    Args:
        path: history.csv.
        block: rows held back at most.
    """

    def __init__(self, path: Path, *, block: int = 50) -> None:
        self.path = path
        self.block = block
        self._rows: list[dict[str, float]] = []
        self._columns: list[str] = list(KEYS)
        if path.exists():
            with open(path, encoding="utf-8", newline="") as stream:
                self._columns = next(csv.reader(stream), list(KEYS))

    def rewind(self, step: int) -> None:
        """Drops what was written after `step`: a resumed run writes it again."""
        self._rows = []
        if not self.path.exists():
            return
        kept = [row for row in read(self.path) if row["step"] <= step]
        self._columns = list(KEYS) + sorted({name for row in kept for name in row} - set(KEYS), key=self._place)
        self._rewrite(kept)

    def add(self, step: int, epoch: float, seconds: float, metrics: Mapping[str, float]) -> None:
        """One row; `seconds` since the run began. What belongs to the step of the row before joins that row."""
        if self._rows and self._rows[-1]["step"] == step:
            self._rows[-1].update(metrics)
            return
        self._rows.append({"step": step, "epoch": round(epoch, 4), "seconds": round(seconds, 3), **metrics})
        if len(self._rows) >= self.block:
            self.flush()

    def flush(self) -> None:
        """Writes the rows that were held back."""
        if not self._rows:
            return
        new = [name for name in dict.fromkeys(n for row in self._rows for n in row) if name not in self._columns]
        if new or not self.path.exists():
            self._columns += new
            self._rewrite(read(self.path) + self._rows)
        else:
            with open(self.path, "a", encoding="utf-8", newline="") as stream:
                stream.write(self._text(self._rows, header=False))
        self._rows = []

    def _place(self, name: str) -> int:
        return self._columns.index(name) if name in self._columns else len(self._columns)

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        write_text(self.path, self._text(rows, header=True))

    def _text(self, rows: list[dict[str, float]], *, header: bool) -> str:
        short = ({name: _short(value) for name, value in row.items()} for row in rows)
        return csv_lines(self._columns, short, header=header)


class RunningMean:
    """Means of the training numbers between two rows. Adds on the device and reads once, so that no step waits."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, numbers: Mapping[str, Tensor]) -> None:
        """Adds one step's scalars. A number that this step does not have is not averaged in."""
        for name, value in numbers.items():
            value = value.detach().double().reshape(())
            self._sums[name] = self._sums[name].to(value.device) + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means since the last read."""
        names = list(self._sums)
        if not names:
            return {}
        # What a resume brought lies on the CPU, and so may a norm of no gradient.
        device = next(
            (value.device for value in self._sums.values() if value.device.type != "cpu"), torch.device("cpu")
        )
        sums = torch.stack([self._sums[name].to(device) for name in names]).tolist()
        means = {name: total / self._counts[name] for name, total in zip(names, sums, strict=True)}
        self._sums, self._counts = {}, {}
        return means

    def state_dict(self) -> dict[str, dict[str, float]]:
        """Sums and counts, for a checkpoint between two rows."""
        return {"sums": {name: float(value) for name, value in self._sums.items()}, "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Mapping[str, float]]) -> None:
        """Goes on from a checkpoint."""
        self._sums = {name: torch.tensor(value, dtype=torch.float64) for name, value in state["sums"].items()}
        self._counts = {name: int(count) for name, count in state["counts"].items()}


def numbers_of_step(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The numbers of one step of the optimiser from those of its batches.

    A loss is the batch's share of the step's, so that one without a term counts as 0; everything else is averaged over the
    batches that have it.
    """
    out = {}
    for name in dict.fromkeys(name for part in parts for name in part):
        values = torch.stack([part[name].detach().double().reshape(()) for part in parts if name in part])
        out[name] = values.sum() / (len(parts) if name.rpartition("/")[2] == "loss" else len(values))
    return out


def read(path: Path) -> list[dict[str, float]]:
    """The rows of a history.csv; a number that a row does not have is left out. Empty where there is no file."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.DictReader(stream) if None not in row]
    return [{name: _number(text) for name, text in row.items() if text} for row in rows]


def _number(text: str) -> float:
    value = float(text)
    return int(value) if value.is_integer() and "." not in text and "e" not in text else value


def _short(value: float) -> float | str:
    return value if isinstance(value, int) else format(value, ".6g")
