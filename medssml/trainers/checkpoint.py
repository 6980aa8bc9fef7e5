"""Checkpoints that are whole or not there: written beside the old one, flushed to the disk, then renamed.

`last.ckpt` and the one before it, `previous.ckpt`, are kept. They hold tensors and plain values only and are read with
``weights_only=True``: a checkpoint from a stranger can run no code.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from medssml.checkpoint import CheckpointError
from medssml.files import whole

__all__ = ["BEST", "LAST", "PREVIOUS", "CheckpointError", "NoSpaceError", "last_step", "load", "load_last", "save"]

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

#: Raised by one when old checkpoints can no longer be read.
FORMAT = 2


class NoSpaceError(OSError):
    """The disk is full; what was saved before is untouched, and the same command goes on from there."""

    exit_code = 75

    def __str__(self) -> str:
        return str(self.strerror)


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes `state` to `path`, whole or not at all.

    Raises:
        NoSpaceError: with what it needs, what is free, and the last good step.
    """
    with space_for(path, state, path.parent), whole(path, one_writer=True) as beside:
        # A stream of ours, as it says why it cannot be written; torch's own does not.
        with open(beside, "wb") as stream:
            torch.save({"format": FORMAT, **state}, stream)
        if path.name == LAST and path.exists():
            os.replace(path, path.with_name(PREVIOUS))


@contextlib.contextmanager
def space_for(path: Path, state: dict[str, Any], checkpoints: Path) -> Iterator[None]:
    """Inside, `state` is written to `path`; a full disk is told with what it needs, and what is left to go on from.

    Args:
        path: file or folder.
        state: whose tensors are written.
        checkpoints: the folder of the last good one.

    Raises:
        NoSpaceError: with what it needs, what is free, and the last good step.
    """
    try:
        yield
    except Exception as error:  # torch and safetensors raise errors of their own
        full = _full_disk(error, path, state, checkpoints)
        if full is None:
            raise
        raise full from error


def load(path: Path) -> dict[str, Any]:
    """The state in the file `path`, on the CPU.

    Raises:
        CheckpointError: it is damaged, of another format, or holds more than tensors and plain values.
    """
    try:
        _check_sums(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise
    except Exception as error:  # torch raises half a dozen kinds for a damaged archive
        raise CheckpointError(
            f"{path.name} cannot be read ({type(error).__name__}); fix: remove it, or --fresh"
        ) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        found = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise CheckpointError(f"{path.name} has format {found}, this version reads {FORMAT}; fix: --fresh")
    return state


def _check_sums(path: Path) -> None:
    """Compares the checksum of every part of the archive, which torch writes and does not compare itself.

    Raises:
        zipfile.BadZipFile: no archive, or a part that is not what was written.
    """
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} is damaged")


def load_last(folder: Path) -> dict[str, Any] | None:
    """The newest state in `folder` that can be read, or None where there is none.

    Raises:
        CheckpointError: there are checkpoints, and none of them can be read.
    """
    failure: CheckpointError | None = None
    for name in (LAST, PREVIOUS):
        if (folder / name).exists():
            try:
                return load(folder / name)
            except CheckpointError as error:
                failure = error
    if failure is not None:
        raise failure
    return None


def _full_disk(error: Exception, path: Path, state: dict[str, Any], checkpoints: Path) -> NoSpaceError | None:
    needed = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(state))
    free = shutil.disk_usage(path.parent).free
    # torch and safetensors wrap what the operating system says, so that the errno may be lost.
    lost = not isinstance(error, OSError) and (free < needed or "No space left" in str(error))
    if getattr(error, "errno", None) not in (errno.ENOSPC, errno.EDQUOT) and not lost:
        return None
    good = last_step(checkpoints)
    return NoSpaceError(
        errno.ENOSPC,
        f"no space for {path.name}: needs {_size(needed)}, {_size(free)} free; last good = "
        f"{'none' if good is None else f'step {good}'}; fix: make room and run the same command again",
    )


def _size(count: int) -> str:
    """Bytes in a unit that fits: 0.9 MB, 12.3 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def last_step(folder: Path) -> int | None:
    """The step of the newest readable checkpoint in `folder`."""
    try:
        state = load_last(folder)
    except (CheckpointError, OSError):
        return None
    return None if state is None else int(state.get("step", 0))


def _tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in _tensors(item)]
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in _tensors(item)]
    return []
