"""Nothing of a name, tag, path or text of a patient is in anything that is written; no network; no stray file.

One run of all verbs over a cohort full of planted tokens, watched by an audit hook.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from medssml.randomness import hash64
from tests.privacy.planted import TOKENS, finds, plant, spellings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
SMOKE = Path(__file__).parents[2] / "configs" / "smoke"
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_TRUNC


class Watch(NamedTuple):
    """What Python was asked to do while it was watched."""

    sockets: list[str]
    written: list[Path]


class Story(NamedTuple):
    manifest: Path
    out: Path
    said: str
    watch: Watch


_watching: list[Watch] = []


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching:
        return
    watch = _watching[-1]
    if event == "socket.__new__" and arguments[1] == socket.AF_UNIX:
        return  # a pipe between processes of this machine
    if event.startswith(("socket.", "http.", "urllib.", "ftplib.", "smtplib.")) and event != "socket.gethostname":
        watch.sockets.append(f"{event} {arguments}")
    elif event == "open" and not isinstance(arguments[0], int):
        _, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & _WRITES:
            watch.written.append(Path(os.fsdecode(arguments[0])).absolute())
    elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "sqlite3.connect"):
        watch.written.append(Path(os.fsdecode(arguments[0])).absolute())
    elif event in ("os.rename", "os.link", "os.symlink"):
        watch.written.extend(Path(os.fsdecode(argument)).absolute() for argument in arguments[:2])


sys.addaudithook(_hook)


@contextlib.contextmanager
def watched() -> Iterator[Watch]:
    watch = Watch([], [])
    _watching.append(watch)
    try:
        yield watch
    finally:
        _watching.remove(watch)


@pytest.fixture(scope="module")
def story(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """check, pretrain, finetune, evaluate, predict, embed, impact and report over the planted cohort."""
    place = tmp_path_factory.mktemp("privacy")
    manifest, out, empty = plant(cohort, place / "data"), place / "out", place / "elsewhere"
    empty.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty)
        for variable in ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(variable, str(empty))
        patch.setattr("tempfile.tempdir", None)
        patch.setenv("MEDSSML_PRIVACY_KEY", str(place / "keys" / "privacy.key"))
        with watched() as watch:
            run(manifest, out)
    yield Story(manifest, out, "", watch)


def run(manifest: Path, out: Path) -> None:
    from medssml import cli

    tasks = ["--task", "malignant"]
    cache = ["--cache", str(out / "cache")]
    given = ["--manifest", str(manifest), *cache]
    steps = ["--set", "trainer.max_epochs=1", "--set", "trainer.validate_every=1"]
    tuned = ["--checkpoint", str(out / "tuned"), *given]
    smoke, shards = ["--config", str(SMOKE / "pretrain.yaml")], ["--shards", f"file://{out / 'shards'}"]
    # The list of a preparation is for who has the files: it names them, and lies elsewhere.
    listed = ["--problems", str(out.parent / "keys" / "problems.csv")]
    commands = [
        ["check", str(manifest), "--deep", "--hash-ids", "--problems", str(out / "problems.csv")],
        ["pretrain", *smoke, *given, "--out", str(out / "pretrain"), *steps],
        ["prepare", *smoke, *given, *shards, "--shard-mb", "2", *listed],
        ["pretrain", *smoke, *shards, *cache, "--out", str(out / "streamed"), *steps],
        ["finetune", "--checkpoint", str(out / "pretrain"), *given, *tasks, "--out", str(out / "tuned"), *steps],
        ["evaluate", *tuned, "--out", str(out / "tuned"), "--bootstrap", "20", *tasks],
        ["predict", *tuned, "--out", str(out / "predictions.csv")],
        ["embed", *tuned, "--out", str(out / "embeddings.parquet")],
        ["impact", *tuned, *tasks, "--out", str(out / "tuned"), "--bootstrap", "20", "--donors", "2", "--split", "all"],
        ["report", str(out / "tuned")],
    ]
    for command in commands:
        assert cli.main(command) == 0, command


def test_no_token_is_in_anything_that_was_written(story: Story) -> None:
    names = {path.name for path in story.out.rglob("*")}
    made = {
        "mlflow.db",
        "last.ckpt",
        "model.safetensors",
        "tokenizer.json",
        "log.txt",
        "predictions.csv",
        "report.html",
    }
    assert made | {"impact.csv", "impact.json", "metrics.json", "problems.csv", "embeddings.parquet"} <= names
    words = {place: spellings(token) for place, token in TOKENS.items()}
    entries = story.out / "cache"
    assert len(list(entries.rglob("*.safetensors"))) > 20
    assert len(list(story.out.glob("shards/*.shard"))) > 2 and len(list(entries.glob("shards/*.shard"))) > 2
    # A cache entry is the model's input, the text of a report among it; it is as sensitive as the data. So are shards.
    texts = ("cache/", "shards/")
    found = [find for find in finds(story.out, words) if not (find.startswith(texts) and find.endswith("): report"))]
    assert found == []


def test_the_search_finds_what_is_there(story: Story, tmp_path: Path) -> None:
    """The same search over the data itself finds every token: an empty result above means something."""
    words = {place: spellings(token) for place, token in TOKENS.items()}
    found = {find.rpartition(": ")[2] for find in finds(story.manifest.parent, words)}
    assert found == set(TOKENS)
    for index, word in enumerate(spellings(TOKENS["note"])):
        (tmp_path / f"{index}.bin").write_bytes(b"\0" + word + b"\xff")
    assert len(finds(tmp_path, words)) == len(spellings(TOKENS["note"]))


def test_no_hash_without_a_key_is_in_anything_that_was_written(story: Story) -> None:
    """A hash that anybody can compute would let anybody try out patient numbers."""
    words = {}
    with story.manifest.open(newline="") as stream:
        for row in csv.DictReader(stream):
            for kind in ("subject_id", "study_id"):
                text, number = row[kind].encode(), hash64(row[kind])
                plain = [hashlib.new(name, text).hexdigest()[:16] for name in ("md5", "sha1", "sha256")]
                plain += [hashlib.blake2b(text, digest_size=size).hexdigest() for size in (4, 8, 16)]
                plain += [str(number), str(number - 2**63), f"{number:016x}"]
                words[f"{kind} of row {row[kind]}"] = {word.encode() for word in plain if len(word) > 8}
                if number >= 2**62:
                    words[f"{kind} of row {row[kind]}"].add((number - 2**63).to_bytes(8, "little", signed=True))
    assert finds(story.out, words) == []


def test_the_codes_lead_back_with_the_key(story: Story, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import pandas as pd

    from medssml import cli

    key = story.out.parent / "keys" / "privacy.key"
    monkeypatch.setenv("MEDSSML_PRIVACY_KEY", str(key))
    results = str(story.out / "tuned" / "predictions.csv")
    assert cli.main(["ids", str(story.manifest), "--results", results, "--out", str(tmp_path / "named.csv")]) == 0
    named, table = pd.read_csv(tmp_path / "named.csv"), pd.read_csv(story.manifest, dtype=str)
    whose = named.drop_duplicates("study_id").set_index("study_id")
    truth = table.set_index("study_id").loc[whose.index]
    assert list(whose["subject"]) == list(truth["subject_id"]) and set(truth["split"]) == {"test"}
    assert list(whose["y"]) == list(truth["label_malignant"].astype(float))
    monkeypatch.setenv("MEDSSML_PRIVACY_KEY", str(tmp_path / "another.key"))
    assert cli.main(["ids", str(story.manifest), "--results", results, "--out", str(tmp_path / "x.csv")]) == 2


def test_the_problem_that_was_planted_is_listed_without_its_name(story: Story) -> None:
    for path in (story.out / "problems.csv", story.out / "pretrain" / "problems.csv"):
        with path.open(newline="") as stream:
            (problem,) = [row for row in csv.DictReader(stream) if row["action"] == "quarantined"]
        assert problem["column"] == "ct" and problem["file"].endswith(".nii.gz") and problem["row"].isdigit()


def test_no_socket_is_opened(story: Story) -> None:
    assert story.watch.sockets == []


def test_nothing_is_written_outside_the_output_folder(story: Story) -> None:
    allowed = (story.out, story.out.parent / "keys")
    # Bytecode is what Python writes of the code itself, wherever a module is imported for the first time.
    written = (path for path in story.watch.written if "__pycache__" not in path.parts)
    stray = {path for path in written if not any(path.is_relative_to(folder) for folder in allowed)}
    elsewhere = story.out.parent / "elsewhere"
    assert {path for path in stray if path != Path(os.devnull) and not path.is_relative_to(elsewhere)} == set()
    # Home, current and temporary folder at once. What libraries write below Python the hook does not see, this does.
    left = {path.relative_to(elsewhere).parts[0] for path in elsewhere.rglob("*") if path.is_file()}
    assert left <= {"matplotlib"}, "matplotlib lists the fonts of the machine there; nothing else belongs there"
    assert finds(elsewhere, {place: spellings(token) for place, token in TOKENS.items()}) == []
    assert len(story.watch.written) > 50
