"""What a transform is made of: the part that reads a file once, and what a dataset asks of the whole.

`Preparation` reads: deterministic, slow, plain arrays out, which the cache stores. It knows nothing of MONAI, so that the
processes that prepare files start fast. A `Transform` is a modality's whole road; `medssml.transforms.road.Road` makes one of
MONAI's dictionary transforms, a class of your own may be another.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medssml.batch import Inputs
from medssml.config import Configured
from medssml.readers.held import Held

#: What `prepare` returns and the cache stores: name -> array. The entry "notes" is text for people.
Prepared = dict[str, NDArray[Any]]
Source = Path | str | Held

NOTES = "notes"


class Preparation:
    """What is read from a file, once.

    Subclasses name in `libraries` the packages whose version changes what `prepare` returns, and raise `revision` when
    their own code does.
    """

    libraries: tuple[str, ...] = ("numpy",)
    revision: int = 1
    #: Whether a string is the text itself, and not the name of a file.
    takes_text: bool = False

    def prepare(self, source: Source, given: Any = None) -> Prepared:
        """What of `source` is worth storing; no randomness.

        Args:
            source: a file; a string is the text itself where `takes_text`; or what `held` made of an array.
            given: what the table says of the file beside its name, or None.

        Raises:
            medssml.readers.errors.ReadError: the file cannot be used, with the reason.
        """
        raise NotImplementedError(f"{type(self).__name__} does not say how a file is prepared")

    def held(self, name: str, value: Any) -> Source:
        """What a caller holds in memory, as a source for `prepare`.

        Args:
            name: of the modality, for messages.
            value: no path and, where `takes_text`, no text.

        Raises:
            TypeError: not of this modality. ValueError: of another shape, range or unit, with the way out.
        """
        what = "the path of a file, or the text" if self.takes_text else "the path of a file"
        raise TypeError(f"{name} is a {type(value).__name__}; fix: {what}")

    def settings(self) -> dict[str, Any]:
        """The arguments that the arrays depend on."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its stored arrays depend on")

    def spec(self, name: str | None = None) -> dict[str, Any]:
        """All that the arrays depend on besides the file: class, revision, arguments, versions of libraries.

        Args:
            name: of the class as a config knows it.
        """
        spec = {
            "class": name or type(self).__name__,
            "revision": self.revision,
            "settings": self.settings(),
            "versions": {name: library_version(name) for name in self.libraries},
        }
        return json.loads(json.dumps(spec))


class Transform(Configured, Preparation):
    """One modality's road from a file to a tensor."""

    def __call__(self, prepared: Prepared, seed: int | None = None) -> Inputs:
        """One study's tensors, without the batch axis; `seed` draws the augmentation, None = none, as in evaluation."""
        raise NotImplementedError(f"{type(self).__name__} does not say how a tensor is made")

    def fit_training(self, prepared: Iterable[Prepared], subjects: Sequence[str] | None = None) -> list[str]:
        """Learns what must be learned from the training split, such as a vocabulary. Nothing by default.

        Args:
            prepared: n studies that have the modality.
            subjects: (n,) whose they are: what one subject alone has must not be learned by heart.

        Returns:
            what whoever trains should know, such as that reports are cut; with the way out.
        """
        return []


@cache
def library_version(name: str) -> str:
    """The installed version of a package, or "absent"."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def notes_array(notes: Iterable[str]) -> NDArray[np.uint8]:
    """Lines for people as an array that the cache can store."""
    return np.frombuffer("\n".join(notes).encode("utf-8"), dtype=np.uint8)


def notes_of(prepared: Prepared) -> list[str]:
    """The lines that `notes_array` stored."""
    stored = prepared.get(NOTES)
    return [] if stored is None else [line for line in bytes(stored).decode("utf-8").split("\n") if line]


def at_least(name: str, value: float, least: float) -> None:
    """Refuses a setting below `least`.

    Raises:
        ValueError: naming the setting.
    """
    if not value >= least:
        raise ValueError(f"{name} is {value}, expected {least} or more")
