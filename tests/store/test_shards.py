"""Prepared shards: the same studies as from the cache, nothing of the table that must not travel, whole or refused."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest
import torch

from medssml.data.collate import Sample
from medssml.data.datamodule import StudyDataModule
from medssml.data.dataset import StudyDataset, StudyError
from medssml.data.prepare import prepare_all, usable
from medssml.data.shard_dataset import ShardDataset, Shards, ShardSettings
from medssml.data.shard_writer import Written, write_shards
from medssml.manifest.manifest import Manifest
from medssml.privacy import Pseudonyms
from medssml.store.cache import Cache
from medssml.store.engines import MissingExtra
from medssml.store.shards import INDEX, ShardError, Storage

#: An entry of these tests takes 256 bytes: three studies to a shard.
ENTRY = 256
SHARD_MB = 3 * ENTRY / 2**20
CODES = Pseudonyms(bytes(range(32)))


@pytest.fixture
def local(plain: Manifest, transforms: dict, tmp_path: Path) -> StudyDataset:
    """The studies that can be used, from their files and a cache."""
    everything = StudyDataset(plain, transforms, Cache(tmp_path / "cache"), train=True)
    accepted, _ = usable(everything, prepare_all(everything, workers=0))
    return StudyDataset(plain.filter(accepted), transforms, everything.cache, train=True)


@pytest.fixture
def memory() -> Iterator[str]:
    """A URL of an object store that is empty."""
    yield "memory://bucket/cohort"
    fsspec.filesystem("memory").store.clear()


def write(dataset: StudyDataset, url: str | Path, ids: Pseudonyms | None = None) -> Written:
    coded = replace(dataset.manifest, ids=ids or Pseudonyms())
    return write_shards(StudyDataset(coded, dataset.transforms, dataset.cache), Storage(url), shard_mb=SHARD_MB)


def read(url: str | Path, tmp_path: Path, transforms: dict, *, train: bool = True, window: int = 3) -> ShardDataset:
    shards = Shards(url, tmp_path / "fetched", ShardSettings(window=window))
    return ShardDataset(shards.index.manifest(), transforms, shards, train=train)


def same(ours: Sample, theirs: Sample, but: tuple[str, ...] = ()) -> bool:
    assert ours.keys() == theirs.keys()
    for name in set(ours) - {"index", *but}:  # shards have an order of their own
        if isinstance(ours[name], torch.Tensor):
            assert torch.equal(ours[name], theirs[name])
        else:
            assert str(ours[name]) == str(theirs[name])  # as text, since NaN is not NaN
    return True


@pytest.mark.parametrize("kind", ["folder", "file", "memory"])
def test_a_study_is_the_same_as_from_the_cache(
    local: StudyDataset, transforms: dict, tmp_path: Path, memory: str, kind: str
) -> None:
    url = {"folder": str(tmp_path / "shards"), "file": f"file://{tmp_path}/shards", "memory": memory}[kind]
    write(local, url)
    ours = read(url, tmp_path, transforms)
    assert len(ours) == len(local) == 36 and sorted(ours.manifest.study_ids) == sorted(local.manifest.study_ids)
    place = {study: index for index, study in enumerate(local.manifest.study_ids)}
    for index, study in enumerate(ours.manifest.study_ids):
        assert same(ours.item(index, 3, 1), local.item(place[study], 3, 1))
        assert ours.manifest.row_number(index) == local.manifest.row_number(place[study])
    assert (tmp_path / "fetched").exists() == (kind != "folder")


def test_table_and_groups_travel_and_shards_are_pure(local: StudyDataset, transforms: dict, tmp_path: Path) -> None:
    write(local, tmp_path / "shards")
    ours = read(tmp_path / "shards", tmp_path, transforms)
    theirs = local.manifest.table.set_index("study_id")
    table = ours.manifest.table.set_index("study_id")
    for column in ("subject_id", "split", "source", "label_sick"):
        assert table[column].to_dict() == theirs[column].to_dict()
    assert ours.manifest.tasks == local.manifest.tasks and ours.manifest.coverage() == local.manifest.coverage()
    shard_of = ours.window.shard  # type: ignore[union-attr]
    assert (np.diff(shard_of) >= 0).all() and len(set(shard_of)) == len(ours.shards.index.shards) > 8
    for number, shard in enumerate(ours.shards.index.shards):
        assert set(ours.manifest.splits[shard_of == number]) == {shard.name.split("-")[0]}
        assert shard.nbytes <= SHARD_MB * 2**20 + ENTRY


def test_hashed_ids_leave_nothing_of_the_table_behind(
    plain: Manifest, transforms: dict, tmp_path: Path, local: StudyDataset
) -> None:
    table = local.manifest.table.assign(comment="zqxnote", study_id=[f"zqxstudy{i}" for i in local.manifest.study_ids])
    table["subject_id"] = [f"zqxsubject{subject}" for subject in table["subject_id"]]
    for index, cell in enumerate(table["xray"]):
        if cell:
            (tmp_path / cell).rename(tmp_path / f"zqxfile{cell}")
            table.iloc[index, table.columns.get_loc("xray")] = f"zqxfile{cell}"
    named = StudyDataset(replace(local.manifest, table=table), transforms, local.cache)
    write(named, tmp_path / "shards", CODES)
    ours = read(tmp_path / "shards", tmp_path, transforms, train=False)
    assert set(ours.manifest.study_ids) == {CODES.study(study) for study in table["study_id"]}
    assert set(ours.manifest.subject_ids) == {CODES.subject(subject) for subject in table["subject_id"]}
    assert ours.manifest.ids.facts() == CODES.facts()
    assert list(ours.manifest.study_codes) == list(ours.manifest.study_ids)  # and are not hashed once more
    place = {CODES.study(study): index for index, study in enumerate(table["study_id"])}
    for index, code in enumerate(ours.manifest.study_ids):
        same(ours.item(index), named.item(place[code]), but=("study_id", "subject", "key"))
    import pandas as pd

    written = list((tmp_path / "shards").iterdir())
    texts = [path.read_bytes() for path in written] + [path.name.encode() for path in written]
    texts += [pd.read_parquet(path).to_csv().encode() for path in written if path.suffix == ".parquet"]
    found = [re.findall(rb"zqx\w+", text) for text in texts]
    assert found == [[]] * len(texts) and len(texts) > 20


def test_written_again_nothing_is_written(local: StudyDataset, tmp_path: Path) -> None:
    first = write(local, tmp_path / "shards")
    assert first.new == first.shards > 8 and first.studies == 36
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()}
    assert write(local, tmp_path / "shards").new == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").iterdir()} == before
    gone = next((tmp_path / "shards").glob("val-*.shard"))
    gone.unlink()
    assert write(local, tmp_path / "shards").new == 1 and gone.exists()
    assert write(local, tmp_path / "shards", CODES).new > 0


def test_written_again_to_a_store_nothing_is_written(local: StudyDataset, memory: str) -> None:
    assert write(local, memory).new > 8
    before = dict(fsspec.filesystem("memory").store)
    assert write(local, memory).new == 0 and fsspec.filesystem("memory").store == before


def test_interrupted_it_goes_on(
    local: StudyDataset, transforms: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, write_file, calls = write(local, tmp_path / "whole"), Storage.write, []

    def full(storage: Storage, name: str, content: bytes) -> None:
        calls.append(name)
        if len(calls) == 4:
            raise OSError(28, "No space left on device")
        write_file(storage, name, content)

    monkeypatch.setattr(Storage, "write", full)
    with pytest.raises(OSError, match="No space"):
        write(local, tmp_path / "shards")
    with pytest.raises(ShardError, match=r"no prepared shards in .*index.json; fix: medssml prepare --shards"):
        Shards(tmp_path / "shards", tmp_path / "fetched")
    assert write(local, tmp_path / "shards").new == whole.shards - 3
    assert calls[-1] == INDEX
    names = [sorted(path.name for path in (tmp_path / name).iterdir()) for name in ("whole", "shards")]
    assert names[0] == names[1]


def test_a_study_that_changed_is_written_and_old_shards_stay(
    local: StudyDataset, plain: Manifest, transforms: dict, tmp_path: Path
) -> None:
    write(local, tmp_path / "shards")
    before = {path.name for path in (tmp_path / "shards").glob("*.shard")}
    (plain.root / "x0.txt").write_text("new")
    fresh = StudyDataset(local.manifest, transforms, local.cache)
    assert write(fresh, tmp_path / "shards").new == 1
    assert before < {path.name for path in (tmp_path / "shards").glob("*.shard")}
    ours = read(tmp_path / "shards", tmp_path, transforms, train=False)
    index = list(ours.manifest.study_ids).index("000")
    assert bytes(ours.prepared(index, "xray").arrays["values"]) == b"new "


def test_other_settings_are_refused_with_key_and_both_values(
    local: StudyDataset, transforms: dict, tmp_path: Path
) -> None:
    write(local, tmp_path / "shards")
    transforms["xray"].scale = 2.0
    with pytest.raises(ShardError, match=r"transforms.xray prepares with scale = 2.0, .* with 1.0; fix: the settings"):
        read(tmp_path / "shards", tmp_path, transforms)


def test_settings_and_versions_of_a_real_transform(
    local: StudyDataset, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    from medssml.transforms import ReportTransform

    texts = StudyDataset(local.manifest, {"report": ReportTransform()}, local.cache)
    reports = StudyDataset(local.manifest.filter(usable(texts, [])[0]), texts.transforms, local.cache)
    write(reports, tmp_path / "shards")
    with pytest.raises(ShardError, match=r"transforms.report prepares with sections = \['findings'\], .* None; fix"):
        read(tmp_path / "shards", tmp_path, {"report": ReportTransform(sections=["findings"])})
    index = json.loads((tmp_path / "shards" / INDEX).read_text())
    index["transforms"]["report"]["versions"]["numpy"] = "1.0"
    (tmp_path / "shards" / INDEX).write_text(json.dumps(index))
    read(tmp_path / "shards", tmp_path, {"report": ReportTransform()})
    assert "shards of report were written with other versions" in caplog.text


def test_a_vocabulary_is_learned_from_the_training_reports_in_few_parts(
    local: StudyDataset, transforms: dict, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(local, memory)
    asked: list[int] = []
    ranges = Storage.ranges
    monkeypatch.setattr(Storage, "ranges", lambda self, parts: asked.append(len(parts)) or ranges(self, parts))
    shards = Shards(memory, tmp_path / "fetched")
    data = StudyDataModule(shards.index.manifest(), transforms, cache_dir=shards, batch_size=4)
    assert data.prepare() == [] and len(data.manifest) == 36
    assert sorted(transforms["report"].seen) == sorted(
        text.encode() + b" " * (4 - len(text)) for text in local.manifest.split("train").table["report_text"] if text
    )
    trained = {shard.name for shard in shards.index.shards if shard.name.startswith("train")}
    assert sum(asked) <= 2 * len(trained) and not (tmp_path / "fetched").exists()


def damage(path: Path, at: int = -1) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 0x55
    path.write_bytes(bytes(content))


def first_values(path: Path) -> int:
    """Where the first byte of values of the first entry is: behind its header, which says how long it is."""
    content = path.read_bytes()
    return 8 + int.from_bytes(content[:8], "little")


@pytest.mark.parametrize("fault", ["flipped", "truncated", "gone"])
@pytest.mark.parametrize("fetched", [False, True])
def test_a_damaged_shard_is_named_with_its_study(
    local: StudyDataset, transforms: dict, tmp_path: Path, fault: str, fetched: bool
) -> None:
    write(local, tmp_path / "shards")
    ours = read(f"file://{tmp_path}/shards" if fetched else tmp_path / "shards", tmp_path, transforms)
    path = tmp_path / "shards" / ours.shards.index.shards[0].name
    if fault == "flipped":
        damage(path, first_values(path))
    elif fault == "truncated":
        os.truncate(path, fetched * 40)
    else:
        path.unlink()
    said = "twice|checksum|has 0 bytes in place of|No such file"
    with pytest.raises(StudyError, match=rf"row \d+, column '\w+', file '{path.name}': study \w+: .*({said}).*fix: "):
        for index in range(3):
            ours.item(index)
    assert ours.item(len(ours) - 1)["study_id"]
    if fetched:
        assert not list((tmp_path / "fetched").glob(f"*{path.name}")) and not list(
            (tmp_path / "fetched").glob(".*.part")
        )


def test_damage_on_the_way_is_fetched_again(
    local: StudyDataset, transforms: dict, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(local, memory)
    ours, read_file, asked = read(memory, tmp_path, transforms), Storage.read, []

    def noisy(storage: Storage, name: str, start: int | None = None, end: int | None = None) -> bytes:
        asked.append(name)
        content = read_file(storage, name, start, end)
        return content[:-1] + b"?" if len(asked) == 1 else content

    monkeypatch.setattr(Storage, "read", noisy)
    ours.item(0)
    assert asked == [asked[0]] * 2
    # What is damaged on the disk of this machine is noticed by the next process, and fetched again as well.
    path = tmp_path / "fetched" / asked[0]
    damage(path, first_values(path))
    again = read(memory, tmp_path, transforms)
    for index in range(3):
        assert same(again.item(index), ours.item(index))


class _Ranges(SimpleHTTPRequestHandler):
    """A folder as a web server gives it, parts of files included."""

    def do_GET(self) -> None:
        content = Path(self.directory, Path(self.path).name).read_bytes()
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        part = content[int(wanted[1]) : int(wanted[2]) + 1] if wanted else content
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_store_over_the_network_serves_loader_processes(
    local: StudyDataset, transforms: dict, tmp_path: Path
) -> None:
    """One that answers from a thread of its own, as those of fsspec for object stores do; processes are forked beside it."""
    pytest.importorskip("aiohttp")
    write(local, tmp_path / "shards")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Ranges, directory=str(tmp_path / "shards")))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        shards = Shards(f"http://127.0.0.1:{server.server_port}", tmp_path / "fetched", ShardSettings(window=2))
        data = StudyDataModule(shards.index.manifest(), transforms, cache_dir=shards, batch_size=4, num_workers=2)
        data.prepare()
        place = {study: index for index, study in enumerate(local.manifest.study_ids)}
        for batch in data.loader("train"):
            for study, key in zip(batch.study_id, batch.key.tolist(), strict=True):
                still = StudyDataset(local.manifest, transforms, local.cache)
                assert key == still.item(place[study])["key"]
        assert transforms["report"].seen
    finally:
        server.shutdown()


def test_a_report_that_is_damaged_in_the_store_stops_the_vocabulary_by_name(
    local: StudyDataset, transforms: dict, tmp_path: Path
) -> None:
    write(local, tmp_path / "shards")
    shards = Shards(f"file://{tmp_path}/shards", tmp_path / "fetched")
    report = next(
        study for study, text in zip(local.manifest.study_ids, local.manifest.table["report_text"], strict=True) if text
    )
    place = shards.index.place(report, "report")
    path = tmp_path / "shards" / shards.index.shards[place.shard].name
    damage(path, place.start + place.nbytes - 1)
    data = StudyDataModule(shards.index.manifest(), transforms, cache_dir=shards, batch_size=4)
    with pytest.raises(StudyError, match=rf"column 'report', file '{path.name}': study {report}: .*twice"):
        data.prepare()


def test_a_client_that_fails_in_its_own_way_is_a_storage_that_is_not_reached(
    local: StudyDataset, transforms: dict, tmp_path: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Payload(Exception):
        pass

    def fail(*_: object, **__: object) -> bytes:
        raise Payload("connection reset")

    write(local, memory)
    ours = read(memory, tmp_path, transforms)
    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", fail)
    with pytest.raises(
        StudyError, match="row .*: memory://bucket/cohort: Payload: connection reset; fix: look at network"
    ):
        ours.item(0)


def test_a_modality_that_the_shards_do_not_have_is_absent(local: StudyDataset, tmp_path: Path) -> None:
    write(local, tmp_path / "shards")
    manifest = Shards(tmp_path / "shards", tmp_path / "fetched").index.manifest(["eeg", "xray"])
    assert manifest.modalities == ("xray", "eeg") and manifest.present.any(axis=0).tolist() == [True, False]


def test_urls_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ShardError, match="credentials; fix: .*environment") as told:
        Storage("s3://me:secret@bucket/cohort")
    assert "secret" not in str(told.value)
    with pytest.raises(ShardError, match="zzz.*fix: a folder, or a URL"):
        Storage("zzz://bucket")
    try:
        import s3fs  # noqa: F401
    except ModuleNotFoundError:
        with pytest.raises(MissingExtra, match=r"'s3fs' is not installed; fix: pip install 'medssml\[s3\]'"):
            Storage("s3://bucket/cohort")


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}', '{"format": 99}', "../../etc"])
def test_an_index_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ShardError, match=r"(damaged|format 99).*fix: write"):
        Shards(tmp_path, tmp_path / "fetched")


def test_an_index_names_no_file_elsewhere(local: StudyDataset, tmp_path: Path) -> None:
    write(local, tmp_path / "shards")
    index = json.loads((tmp_path / "shards" / INDEX).read_text())
    index["shards"][0][0] = "../../outside.shard"
    (tmp_path / "shards" / INDEX).write_text(json.dumps(index))
    with pytest.raises(ShardError, match=r"damaged \('../../outside.shard' is no name of a shard\)"):
        Shards(tmp_path / "shards", tmp_path / "fetched")


def test_a_window_that_does_not_fit_is_refused(local: StudyDataset, tmp_path: Path, memory: str) -> None:
    write(local, memory)
    with pytest.raises(ShardError, match=r"shards.window 3 .* do not fit; fix: shards.gib=.*, or shards.window=1"):
        Shards(memory, tmp_path / "fetched", ShardSettings(window=3, gib=3.4 * SHARD_MB / 1024))
    with pytest.raises(ValueError, match="shards.window is 0; fix: 1 or more"):
        ShardSettings(window=0)
