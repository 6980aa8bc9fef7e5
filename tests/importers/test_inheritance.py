"""BIDS sidecars from above: which hold for a recording, which of several counts, and what the manifest takes from them."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import pytest

from medssml.importers.account import Account
from medssml.importers.inheritance import KINDS, Sidecars
from medssml.importers.tree import Tree
from tests.importers.trees import Made, put, run

REST = "sub-01/ses-1/eeg/sub-01_ses-1_task-rest_run-1"
CHANNELS = "name\ttype\tunits\tstatus\n"
EVENTS = "onset\tduration\ttrial_type\n1\t0\ta\n"


def bids(folder: Path, **files: str) -> Made:
    return run(
        "bids-eeg", put(folder / "set", {f"{REST}_eeg.edf": b"1", "sub-02/eeg/sub-02_task-rest_eeg.edf": b"1", **files})
    )


def test_a_sidecar_of_the_whole_set_holds_for_every_recording_of_its_task(tmp_path: Path) -> None:
    made = bids(
        tmp_path,
        **{
            "task-rest_events.tsv": EVENTS,
            "task-rest_channels.tsv": CHANNELS + "Fp1\tEEG\tuV\tbad\nCz\tEEG\tuV\tgood\nT7\tEEG\tuV\tBAD\n",
            "task-sleep_events.tsv": EVENTS,
            "task-rest_eeg.json": json.dumps({"PowerLineFrequency": 50, "EEGReference": "n/a"}),
        },
    )
    for row in made.rows.values():
        assert (row["events"], row["bad_channels"], row["power_line_hz"]) == ("task-rest_events.tsv", "Fp1;T7", "50")
        assert "eeg_reference" not in row
    assert made.why(file="task-rest_events.tsv") == made.why(file="task-rest_channels.tsv") == ""
    assert "not part of the layout" in made.why(file="task-sleep_events.tsv")


def test_the_closest_counts_and_json_is_put_together(tmp_path: Path) -> None:
    made = bids(
        tmp_path,
        **{
            "task-rest_events.tsv": EVENTS,
            "sub-01/sub-01_task-rest_events.tsv": EVENTS,
            f"{REST}_channels.tsv": CHANNELS + "O1\tEEG\tuV\tbad\n",
            "sub-01/ses-1/eeg/sub-01_ses-1_channels.tsv": CHANNELS + "Fp1\tEEG\tuV\tbad\n",
            "channels.tsv": CHANNELS + "Pz\tEEG\tuV\tbad\n",
            "task-rest_eeg.json": json.dumps({"PowerLineFrequency": 50, "EEGReference": "Cz"}),
            "sub-01/sub-01_eeg.json": json.dumps({"PowerLineFrequency": 60}),
            "sub-02/eeg/sub-02_task-rest_eeg.json": "no JSON",
            "sub-01/ses-1/eeg/sub-01_ses-1_space-CapTrak_electrodes.tsv": "name\tx\ty\tz\n",
        },
    )
    one, two = made.rows["sub-01_ses-1_task-rest_run-1"], made.rows["sub-02_task-rest"]
    assert (one["events"], two["events"]) == ("sub-01/sub-01_task-rest_events.tsv", "task-rest_events.tsv")
    assert (one["bad_channels"], two["bad_channels"]) == ("O1", "Pz")
    assert (one["power_line_hz"], one["eeg_reference"]) == ("60", "Cz")
    assert (two["power_line_hz"], two["eeg_reference"]) == ("50", "Cz")
    assert made.why(file="sub-02/eeg/sub-02_task-rest_eeg.json") == "no JSON object"
    assert any("JSON sidecar that cannot be read" in note for note in made.done.notes)
    assert made.why(file="sub-01/ses-1/eeg/sub-01_ses-1_space-CapTrak_electrodes.tsv") == ""


def test_a_sidecar_of_another_subject_session_or_run_does_not_hold(tmp_path: Path) -> None:
    others = (
        "sub-02/sub-02_task-rest_events.tsv",
        "sub-01/ses-2/sub-01_ses-2_events.tsv",
        "sub-01/ses-1/eeg/sub-01_ses-1_task-rest_run-2_events.tsv",
    )
    made = bids(tmp_path, **dict.fromkeys(others, EVENTS), **{"sub-01/sub-01_ses-2_task-rest_events.tsv": EVENTS})
    assert made.rows["sub-01_ses-1_task-rest_run-1"]["events"] == ""
    assert made.rows["sub-02_task-rest"]["events"] == others[0]


def walk_back(files: list[str], recording: str, kind: str) -> list[str]:
    """As the BIDS validator describes its walk: from the file's folder up, every file whose entities are a subset."""

    def parts(name: str) -> set[str]:
        return set(name.split("_")[:-1])

    folder, name = Path(recording).parent, Path(recording).name
    found: list[str] = []
    while True:
        level = [
            f
            for f in files
            if Path(f).parent == folder and Path(f).name.split("_")[-1] == kind and parts(Path(f).name) <= parts(name)
        ]
        found += sorted(level, key=lambda f: (-len(parts(Path(f).name)), f))
        if folder == folder.parent:
            return found
        folder = folder.parent


@pytest.mark.parametrize("seed", range(5))
def test_against_the_walk_of_the_validator(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    entities = [
        dict(zip(("sub", "ses", "task", "run"), v, strict=True))
        for v in itertools.product("12", "12", ("a", "b"), "12")
    ]
    folders = [
        "",
        "sub-1",
        "sub-2",
        "sub-1/ses-1",
        "sub-1/ses-1/eeg",
        "sub-2/ses-2/eeg",
        "sub-2/ses-1/eeg",
        "sub-1/ses-2",
    ]
    files = set()
    for _ in range(80):
        chosen = dice.choice(entities)
        stem = "".join(f"{key}-{value}_" for key, value in chosen.items() if dice.random() < 0.4)
        files.add(f"{dice.choice(folders)}/{stem}{dice.choice(sorted(KINDS))}".lstrip("/"))
    sidecars = Sidecars(Tree(put(tmp_path, dict.fromkeys(files, "{}")), Account()))
    held = 0
    for e in entities:
        recording = f"sub-{e['sub']}/ses-{e['ses']}/eeg/" + "_".join(f"{k}-{v}" for k, v in e.items()) + "_eeg.edf"
        found = sidecars.of(recording)
        for kind in KINDS:
            assert found.get(kind, []) == walk_back(sorted(files), recording, kind)
            held += len(found.get(kind, []))
    assert held > 20
