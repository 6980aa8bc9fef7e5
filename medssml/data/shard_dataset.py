"""Studies from prepared shards: the items of `StudyDataset`, without the files that they were made of."""

from __future__ import annotations

import itertools
import logging
import mmap
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medssml.data.dataset import Plan, StudyDataset, Transform
from medssml.data.epoch_order import Window
from medssml.manifest.manifest import Manifest
from medssml.store.cache import Arrays, Cache, DamagedEntry, Entry, parse_entry
from medssml.store.shard_folder import DamagedShard, ShardFolder, mapped
from medssml.store.shards import Index, Place, Shard, ShardError, Storage

_log = logging.getLogger(__name__)
#: Shards of which parts are asked for at once.
_AT_ONCE = 16
#: Shards in the folder beside those of the window: the next one, and the one that a loader process may not have left yet.
_SPARE = 2


@dataclass(frozen=True)
class ShardSettings:
    """How prepared shards are read.

    window: shards that are open, and mixed, at a time; the order of training depends on it. gib: GiB of fetched shards that
    may lie on this machine's disk; not used where the shards lie in a folder.
    """

    window: int = 16
    gib: float = 8.0

    def __post_init__(self) -> None:
        if self.window < 1:
            raise ValueError(f"shards.window is {self.window}; fix: 1 or more")
        if not self.gib > 0:
            raise ValueError(f"shards.gib is {self.gib}; fix: more than 0")


class Shards:
    """The prepared studies of one place.

    Args:
        url: a folder, read where it lies, or a URL of fsspec, from which shards are fetched as they are needed.
        folder: where fetched shards are kept; several processes may share it.
        settings: window and room.

    Raises:
        ShardError: no shards there, or not enough room for the window. OSError: not reached. MissingExtra: a package.
    """

    def __init__(self, url: str | Path, folder: Path, settings: ShardSettings | None = None) -> None:
        settings = settings or ShardSettings()
        storage = Storage(url)
        self.index, self.window = Index(storage), settings.window
        self.folder: ShardFolder | None = None
        if storage.folder is None:
            limit = int(settings.gib * 2**30)
            _enough(self.index.shards, limit, settings)
            self.folder = ShardFolder(storage, folder, limit)
        self._checked: set[Place] = set()
        self._said: set[str] = set()

    def require(self, specs: Mapping[str, Mapping[str, Any]]) -> None:
        """Refuses transforms that prepare something else than what lies here.

        Raises:
            ShardError: with key and both values.
        """
        others = self.index.require(specs)
        if others:
            self._warn(f"the shards of {', '.join(others)} were written with other versions of its libraries")

    def warn_if_short(self, needed: Iterable[Shard]) -> None:
        """Says once that shards which are needed at a time do not fit, so that some are fetched more than once."""
        nbytes = sum(shard.nbytes for shard in needed)
        if self.folder is not None and nbytes > self.folder.limit and "short" not in self._said:
            self._said.add("short")
            self._warn(
                f"{nbytes / 2**30:.3g} GiB of shards are needed at a time, with what loader processes read ahead, and shards.gib "
                f"is {self.folder.limit / 2**30:.3g}: some are fetched more than once; fix: a larger shards.gib"
            )

    def _warn(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _log.warning(text)

    def entry(self, study_id: str, modality: str) -> Entry:
        """What was prepared of one modality of a study; views of the shard.

        Raises:
            DamagedEntry, DamagedShard: damaged, after it was fetched again. ShardError: no room. OSError: not reached.
        """
        place = self.index.place(study_id, modality)
        shard = self.index.shards[place.shard]
        try:
            return self._read(self._map(shard), place)
        except DamagedEntry:
            if self.folder is None:
                raise
            _log.warning("shard %s is damaged in its folder: it is fetched again", shard.name)
            self.folder.remove(shard)
            return self._read(self._map(shard), place)

    def entries(self, study_ids: Iterable[str], modality: str) -> Iterator[Entry | None]:
        """What was prepared of one modality of several studies, None where it is damaged. Only their part of each shard is
        fetched.

        Raises:
            OSError: not reached.
        """
        wanted = (self.index.place(study, modality) for study in study_ids)
        by_shard = itertools.groupby(wanted, key=lambda place: place.shard)
        while group := [list(places) for _, places in itertools.islice(by_shard, _AT_ONCE)]:
            parts = [self._part(places) for places in group]
            for places, (_, first, _), content in zip(group, parts, self.index.storage.ranges(parts), strict=True):
                yield from (_within(content, place, first) for place in places)

    def _part(self, places: Sequence[Place]) -> tuple[str, int, int]:
        """Name of a shard and the bytes from the first to the last of these entries: one modality lies together."""
        end = max(place.start + place.nbytes for place in places)
        return self.index.shards[places[0].shard].name, min(place.start for place in places), end

    def _map(self, shard: Shard) -> mmap.mmap:
        if self.folder is not None:
            return self.folder.map(shard)
        with Path(self.index.storage.url, shard.name).open("rb") as file:
            return mapped(file, shard)

    def _read(self, content: mmap.mmap, place: Place) -> Entry:
        # Once per process is enough, as in the cache: nobody rewrites a shard.
        entry = parse_entry(memoryview(content)[place.start : place.start + place.nbytes], place not in self._checked)
        self._checked.add(place)
        return entry


def _within(content: bytes, place: Place, first: int) -> Entry | None:
    """The entry in a part of its shard that begins at `first`."""
    start = place.start - first
    try:
        return parse_entry(memoryview(content)[start : start + place.nbytes])
    except DamagedEntry:
        return None


def _enough(shards: Sequence[Shard], limit: int, settings: ShardSettings) -> None:
    """Refuses a bound that would have shards fetched again and again."""
    largest, total = max((shard.nbytes for shard in shards), default=0), sum(shard.nbytes for shard in shards)
    needed = (settings.window + _SPARE) * largest
    if limit >= min(needed, total):
        return
    fits = limit // max(largest, 1) - _SPARE
    narrower = f", or shards.window={fits}" if fits >= 1 else ""
    raise ShardError(
        f"shards.gib is {settings.gib:g}, shards.window {settings.window} and the largest shard {largest / 2**20:,.1f} MiB: the "
        f"window and {_SPARE} more do not fit; fix: shards.gib={needed / 2**30:.3g}{narrower}"
    )


class ShardDataset(StudyDataset):
    """Studies of prepared shards, each modality through the second part of its transform.

    Args:
        manifest: which studies; of `Index.manifest`.
        transforms: modality -> transform, with the settings that the shards were written with.
        shards: where they are.
        seed, train: as `StudyDataset`.

    Raises:
        ShardError: the shards were written with other settings.
    """

    all_prepared = True

    def __init__(
        self,
        manifest: Manifest,
        transforms: Mapping[str, Transform],
        shards: Shards,
        *,
        seed: int = 0,
        train: bool = False,
    ) -> None:
        super().__init__(manifest, transforms, Cache(None), seed=seed, train=train)
        self.shards = shards
        shards.require({modality: recipe.spec for modality, recipe in self.recipes.items()})
        self.window = Window(shards.index.shard_of(manifest.study_ids), shards.window)

    def prepared(self, index: int, modality: str) -> Entry:
        """What was prepared.

        Raises:
            StudyError: its shard cannot be used.
        """
        try:
            return self.shards.entry(str(self.manifest.study_ids[index]), modality)
        except (DamagedEntry, DamagedShard, ShardError, OSError) as error:
            reason = f"study {self.manifest.study_codes[index]}: {error or type(error).__name__}"
            raise self.error(
                index, modality, f"{reason}; fix: write the shards again, or look at the storage"
            ) from error

    def arrays_of(self, indices: Iterable[int], modality: str) -> Iterator[Arrays]:
        """What was prepared of several studies; of a store, only what is asked for is fetched.

        Raises:
            StudyError: a shard cannot be used. OSError: not reached.
        """
        if self.shards.folder is None:
            return super().arrays_of(indices, modality)
        indices = list(indices)
        found = self.shards.entries((str(self.manifest.study_ids[index]) for index in indices), modality)
        pairs = zip(indices, found, strict=True)
        return ((entry or self.prepared(index, modality)).arrays for index, entry in pairs)

    def look_ahead(self, plans: Iterable[Plan], held: int) -> Iterable[Plan]:
        """The same plans; a thread fetches the shards of later ones."""
        folder = self.shards.folder
        return plans if folder is None else self._ahead(iter(plans), held, folder)

    def _ahead(self, plans: Iterator[Plan], held: int, folder: ShardFolder) -> Iterator[Plan]:
        fetcher = _Fetcher(folder)
        taken: deque[list[Shard]] = deque(maxlen=held)
        upcoming: deque[tuple[Plan, list[Shard]]] = deque()
        # Evaluation goes shard by shard, and leaves the folder to the training that it interrupts.
        width = self.shards.window if self.train else 1
        try:
            while True:
                while len(next_ones := _distinct(shards for _, shards in upcoming)) <= width:
                    if len(upcoming) > len(self) or (plan := next(plans, None)) is None:
                        break
                    upcoming.append((plan, self._shards_of(plan)))
                if not upcoming:
                    return
                needed = _distinct([*taken, next_ones])
                self.shards.warn_if_short(needed)
                fetcher.want(needed)
                plan, shards = upcoming.popleft()
                taken.append(shards)
                yield plan
        finally:
            fetcher.end()

    def _shards_of(self, plan: Plan) -> list[Shard]:
        if self.window is None:
            raise RuntimeError("studies of shards have a window")
        return [self.shards.index.shards[number] for number in {int(self.window.shard[index]) for index, _, _ in plan}]


def open_dataset(
    manifest: Manifest,
    transforms: Mapping[str, Transform],
    prepared: Cache | Shards,
    *,
    seed: int = 0,
    train: bool = False,
) -> StudyDataset:
    """The studies, from wherever what is prepared of them lies.

    Raises:
        ShardError: shards that were written with other settings.
    """
    if isinstance(prepared, Shards):
        return ShardDataset(manifest, transforms, prepared, seed=seed, train=train)
    return StudyDataset(manifest, transforms, prepared, seed=seed, train=train)


def _distinct(groups: Iterable[Iterable[Shard]]) -> list[Shard]:
    """The shards in the order in which they are needed."""
    return list(dict.fromkeys(shard for shards in groups for shard in shards))


class _Fetcher:
    """A thread that fetches what will be needed, where there is room beside what is needed before it.

    What fails is left to the reader, who will say so.
    """

    def __init__(self, folder: ShardFolder) -> None:
        self.folder = folder
        self._wanted: list[Shard] = []
        self._news, self._ended = threading.Event(), False
        threading.Thread(target=self._run, name="medssml-shards", daemon=True).start()

    def want(self, shards: list[Shard]) -> None:
        """What is needed from now on, the soonest first; nothing else is."""
        self._wanted = shards
        self._news.set()

    def end(self) -> None:
        """Ends the thread after the shard that it is at."""
        self._ended = True
        self._news.set()

    def _run(self) -> None:
        while self._news.wait() and not self._ended:
            self._news.clear()
            self.folder.touch(self._wanted)
            try:
                self._fetch_missing()
            except (OSError, ValueError) as error:
                _log.debug("a shard could not be fetched ahead: %s", error)

    def _fetch_missing(self) -> None:
        def missing() -> Shard | None:
            return next((shard for shard in self._wanted if not self.folder.has(shard)), None)

        while not self._ended and (shard := missing()) is not None:
            if not self.folder.fetch(shard, sparing=self._wanted):
                return
