"""Where the studies of a training come from: a study table with its files, or prepared shards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from medssml.data.shard_dataset import Shards, ShardSettings
    from medssml.manifest.labels import Label
    from medssml.manifest.manifest import Manifest
    from medssml.privacy import Pseudonyms


def source(
    manifest: Path | None,
    shards: str | None,
    limits: ShardSettings,
    cache: Path,
    *,
    modalities: Sequence[str] | None,
    ids: Pseudonyms,
    data_root: Path | None = None,
    allow_outside: bool = False,
    tasks: Mapping[str, str | Label] | None = None,
) -> tuple[Manifest, Path | Shards]:
    """The study table, and where what is prepared lies: the folder `cache`, or the shards that the table came from.

    Args:
        limits: of the shards that are fetched.
        tasks: what is said of tasks, where the cells alone do not say it rightly.

    Raises:
        ValueError: both or neither. medssml.manifest.table_text.ManifestError: a wrong table.
        medssml.store.shards.ShardError: no shards.
    """
    one_of(manifest, shards, data_root, allow_outside)
    if shards is None:
        from medssml.manifest.manifest import Manifest

        studies = Manifest.read(Path(str(manifest)), data_root, modalities, allow_outside, tasks=tasks, ids=ids)
        say_saved(studies, Path(str(manifest)))
        say_split(studies)
        return studies, cache
    from medssml.data.shard_dataset import Shards

    opened = Shards(shards, cache / "shards", limits)
    return opened.index.manifest(modalities, ids, tasks), opened


def say_saved(studies: Manifest, path: Path) -> None:
    """Says how a table was saved, where that is not in UTF-8 with commas and the known names."""
    from medssml.runs import console

    for line in studies.saved:
        console.say(f"{path.name}: {line}")


def say_split(studies: Manifest, split: str | None = None) -> None:
    """Says that a table names no split, and what was made of it; nothing where all studies are taken.

    Args:
        split: of the studies that are reported; None where all three are used, as in training.
    """
    from medssml.runs import console

    if studies.official_split or split == "all":
        return
    counts = {name: int((studies.splits == name).sum()) for name in ("train", "val", "test")}
    told = "no split column: a hash of the subject takes "
    if split is None:
        console.say(told + ", ".join(f"{count} studies as {name}" for name, count in counts.items()))
    else:
        console.warn(f"{told}{counts[split]} of {len(studies)} studies as {split}; fix: --split all for every one")


def one_of(
    manifest: Path | None, shards: str | None, data_root: Path | None = None, allow_outside: bool = False
) -> None:
    """Refuses both, and neither, and with shards what is said of the files of a table.

    Raises:
        ValueError: with the flags.
    """
    if (manifest is None) == (shards is None):
        raise ValueError("studies come from a table or from prepared shards; fix: give --manifest or --shards")
    said = [
        flag for flag, given in (("--data-root", data_root is not None), ("--allow-outside", allow_outside)) if given
    ]
    if shards is not None and said:
        raise ValueError(f"{' and '.join(said)} with --shards, which hold their files themselves; fix: leave it out")
