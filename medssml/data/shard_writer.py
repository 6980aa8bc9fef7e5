"""Writes the prepared studies of a cache as shards: what training needs, and nothing else of the table."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from medssml.data.dataset import StudyDataset
from medssml.manifest.splits import SPLITS
from medssml.randomness import hash64
from medssml.readers.inflate import crc32
from medssml.store.shards import FORMAT, INDEX, Index, Shard, ShardError, Storage, place_columns

#: Entries begin at multiples of this, so that their arrays are aligned.
_ALIGN = 64
_KNOWN = ("split", "source")
_PREFIXES = ("label_", "group_")


class Written(NamedTuple):
    """studies, nbytes: in the shards now. shards: how many; new: how many of them had to be written."""

    studies: int
    nbytes: int
    shards: int
    new: int


def write_shards(
    dataset: StudyDataset,
    storage: Storage,
    *,
    shard_mb: float = 64.0,
    progress: Callable[[int, int], None] | None = None,
) -> Written:
    """Writes the studies of `dataset`, each of which has a modality and no failing file.

    What lies there already is not written again; an interrupted pass goes on by the same call. Shards of an earlier
    version stay, for who still reads them.

    Args:
        dataset: its cache is filled; what it lacks is prepared. Its manifest says what studies are called.
        storage: where to.
        shard_mb: MiB of one shard, about.
        progress: told (studies done, studies) after each shard.

    Raises:
        StudyError: a file that cannot be used. OSError: the storage cannot be written. ShardError: no studies.
    """
    if not len(dataset):
        raise ShardError("no study to write; fix: look at problems.csv")
    made_of = _digest(dataset, shard_mb)
    there = storage.sizes()
    index = _index_of(storage) if INDEX in there else None
    if index is not None and index.made_of == made_of and all(there.get(s.name) == s.nbytes for s in index.files):
        return Written(len(dataset), sum(shard.nbytes for shard in index.shards), len(index.shards), 0)
    rows, shards, new = [], [], 0
    for number, (split, indices) in enumerate(_cut(dataset, int(shard_mb * 2**20))):
        content, places = _packed(dataset, indices)
        shard = Shard(f"{split}-{number:05d}-{_name(content)}.shard", len(content), crc32(content))
        if there.get(shard.name) != shard.nbytes:
            storage.write(shard.name, content)
            new += 1
        rows += [{"index": index, "shard": number, **places[index]} for index in indices]
        shards.append(shard)
        if progress is not None:
            progress(len(rows), len(dataset))
    studies = _studies(dataset, pd.DataFrame(rows).set_index("index"))
    table = Shard(f"studies-{_name(studies)}.parquet", len(studies), crc32(studies))
    storage.write(table.name, studies)
    storage.write(INDEX, _index(dataset, made_of, shards, table))
    return Written(len(dataset), sum(shard.nbytes for shard in shards), len(shards), new)


def _index_of(storage: Storage) -> Index | None:
    """What was written before; None where it cannot be used."""
    try:
        return Index(storage)
    except ShardError:
        return None


def _cut(dataset: StudyDataset, most: int) -> Iterator[tuple[str, list[int]]]:
    """(split, studies) of each shard, by the sizes of the entries. A split is shuffled, so that a shard is a mixture."""
    codes, splits = dataset.manifest.study_codes, dataset.manifest.splits
    for split in SPLITS:
        order = sorted(np.flatnonzero(splits == split), key=lambda index: hash64(str(codes[index])))
        held: list[int] = []
        size = 0
        for index in (int(position) for position in order):
            more = sum(_padded(_file(dataset, index, m).stat().st_size) for m in dataset.present(index))
            if held and size + more > most:
                yield split, held
                held, size = [], 0
            held.append(index)
            size += more
        if held:
            yield split, held


def _file(dataset: StudyDataset, index: int, modality: str) -> Path:
    """The file of one entry, checked; a damaged one is made again."""
    dataset.prepared(index, modality)
    return dataset.cache.path(dataset.key(index, modality))


def _packed(dataset: StudyDataset, indices: list[int]) -> tuple[bytes, dict[int, dict[str, int]]]:
    """The content of one shard, and the places of its entries: one modality after the other, so that one can be fetched."""
    parts: list[bytes] = []
    places: dict[int, dict[str, int]] = {index: {} for index in indices}
    end = 0
    for modality in dataset.modalities:
        start, nbytes = place_columns(modality)
        for index in indices:
            entry = _file(dataset, index, modality).read_bytes() if modality in dataset.present(index) else b""
            places[index] |= {start: end, nbytes: len(entry)}
            parts += [entry, bytes(_padded(len(entry)) - len(entry))]
            end += _padded(len(entry))
    return b"".join(parts), places


def _padded(nbytes: int) -> int:
    return -(-nbytes // _ALIGN) * _ALIGN


def _table(dataset: StudyDataset) -> pd.DataFrame:
    """What of the studies travels: no file names, no inline texts, no columns that nobody asked for."""
    manifest = dataset.manifest
    kept = [c for c in manifest.table if c in _KNOWN or str(c).startswith(_PREFIXES)]
    table = manifest.table[kept].reset_index(drop=True)
    table.insert(0, "study_id", manifest.study_codes)
    table.insert(1, "subject_id", manifest.subject_codes)
    table.insert(2, "row", [manifest.row_number(index) for index in range(len(manifest))])
    return table


def _studies(dataset: StudyDataset, places: pd.DataFrame) -> bytes:
    """The studies as Parquet, in the order of the shards."""
    stream = io.BytesIO()
    _table(dataset).loc[places.index].join(places).to_parquet(stream, index=False)
    return stream.getvalue()


def _index(dataset: StudyDataset, made_of: str, shards: list[Shard], table: Shard) -> bytes:
    said = {
        "format": FORMAT,
        "made_of": made_of,
        "ids": dataset.manifest.ids.facts(),
        "tasks": {name: asdict(label) for name, label in dataset.manifest.tasks.items()},
        "transforms": {modality: recipe.spec for modality, recipe in dataset.recipes.items()},
        "studies": table,
        "shards": shards,
    }
    return json.dumps(said, indent=1).encode()


def _digest(dataset: StudyDataset, shard_mb: float) -> str:
    """Hash of all that the shards depend on; found without reading an entry."""
    digest = hashlib.blake2b(digest_size=16)
    said: list[Any] = [FORMAT, shard_mb, dataset.manifest.ids.facts(), list(dataset.modalities)]
    digest.update(json.dumps(said).encode())
    digest.update(_table(dataset).to_csv(index=False).encode())
    for index in range(len(dataset)):
        for modality in dataset.present(index):
            digest.update(dataset.key(index, modality).encode())
    return digest.hexdigest()


def _name(content: bytes) -> str:
    return hashlib.blake2b(content, digest_size=8).hexdigest()
