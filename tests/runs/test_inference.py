"""What the verbs that use a trained model share: a table is read once, and what was left out is told once."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from medssml.data.prepared_studies import PreparedStudies
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import Problem, read_problems
from medssml.privacy import Pseudonyms
from medssml.runs.inference import asked_tasks, conclude, read_studies, say_hidden
from medssml.store.cache import Cache

TABLE = "subject_id,study_id,xray,eeg,label_a\np1,s1,a.png,,1\np2,s2,b.png,,0\n"


def test_a_table_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reads, original = tmp_path / "manifest.csv", [], Path.read_bytes
    path.write_text(TABLE)

    def counted(self: Path) -> bytes:
        reads.append(self)
        return original(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    predictor: Any = SimpleNamespace(modalities=("ct", "xray"), model=SimpleNamespace(tasks={}))
    studies = read_studies(path, predictor, None, False, Pseudonyms())
    assert reads.count(path) == 1 and studies.modalities == ("xray",) and list(studies.tasks) == ["a"]


def part(tmp_path: Path, problems: int, asked: int) -> PreparedStudies:
    (tmp_path / "manifest.csv").write_text(TABLE)
    found = tuple(Problem(2 + i, f"s{i}", "xray", "", "unreadable", "broken", "mend it") for i in range(problems))
    return PreparedStudies(Manifest.read(tmp_path / "manifest.csv"), {}, Cache(None), found, 0, asked)


def test_what_is_left_out_of_several_parts_is_one_list_and_one_count(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert (
        conclude([part(tmp_path, 0, 9)], tmp_path, "evaluate") == tmp_path and not (tmp_path / "problems.csv").exists()
    )
    assert conclude([part(tmp_path, 1, 100), part(tmp_path, 3, 100)], tmp_path, "evaluate") == tmp_path
    assert len(read_problems(tmp_path / "problems.csv")) == 4
    assert "4 of 200 studies left out" in capsys.readouterr().err
    assert conclude([part(tmp_path, 3, 50), part(tmp_path, 3, 50)], tmp_path, "evaluate") == 4
    assert "6 of 100 studies are quarantined, the limit is 5" in capsys.readouterr().err
    assert conclude([part(tmp_path, 2, 4)], tmp_path, "evaluate") == 4


@pytest.mark.parametrize(
    ("subset", "expected"),
    [("ct+eeg", "2 of 9 studies have none of --subset ct+eeg: left out"), (None, "2 of 9 studies have nothing at all")],
)
def test_what_was_left_out_is_said_in_the_words_of_what_was_asked(
    subset: str | None, expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say_hidden(2, 9, subset, "nothing at all")
    assert expected in capsys.readouterr().err
    say_hidden(0, 9, subset)
    assert capsys.readouterr().err == ""


def test_by_default_all_of_the_first_and_else_each_once() -> None:
    assert (
        asked_tasks([], ["a", "b"]) == asked_tasks("all", ["a", "b"]) == asked_tasks(["all"], ["a", "b"]) == ["a", "b"]
    )
    assert asked_tasks("b", ["a", "b"]) == asked_tasks(["b", "b"], ["a", "b"]) == ["b"]
    assert asked_tasks([], ["a"], ["a", "b"]) == ["a"]


def test_every_model_has_to_know_them() -> None:
    with pytest.raises(KeyError, match="the model has no task 'b'; it has a"):
        asked_tasks([], ["a", "b"], ["a"])
    with pytest.raises(KeyError, match="no task 'sik'; did you mean 'sick'"):
        asked_tasks("sik", ["sick"])
    with pytest.raises(KeyError, match="pretrained only and predicts nothing; fix: medssml finetune first"):
        asked_tasks([], ["a"], [])
