"""The key and the codes: keyed, stable, made once, for its owner's eyes; a problem without names."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from medssml.manifest.problems import Problem
from medssml.manifest.redaction import redacted
from medssml.privacy import KEY_VARIABLE, PrivacyError, Pseudonyms, key_file, pseudonyms, short_code


@pytest.fixture
def key(tmp_path: Path) -> dict[str, str]:
    return {KEY_VARIABLE: str(tmp_path / "deep" / "privacy.key")}


def test_the_key_is_made_once_for_its_owner_alone(key: dict[str, str]) -> None:
    first = pseudonyms(environ=key)
    path = Path(key[KEY_VARIABLE])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    content = path.read_text()
    assert len(bytes.fromhex(content)) == 32 and pseudonyms(environ=key) == first and path.read_text() == content
    assert [p.name for p in path.parent.iterdir()] == ["privacy.key"]


def test_processes_that_make_it_at_once_agree(key: dict[str, str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: pseudonyms(environ=key), range(64)))
    assert len({ids.key for ids in made}) == 1


def test_a_code_is_the_keyed_hash_of_the_standard(key: dict[str, str]) -> None:
    ids = pseudonyms(environ=key)
    secret = bytes.fromhex(Path(key[KEY_VARIABLE]).read_text())
    oracle = hashlib.blake2b(b"MRN 007", digest_size=8, key=secret, person=b"study").hexdigest()
    assert ids.study("MRN 007") == "s" + oracle
    assert ids.subject("MRN 007")[0] == "p" and oracle not in ids.subject("MRN 007")
    assert ids.file("a/Müller.nii.gz").endswith(".nii.gz") and ids.file("a/1.Mueller") == ids.file("a/1.Mueller")
    assert re.fullmatch(r"f[0-9a-f]{16}", ids.file("a/scan.Mueller")) and ids.file("") == ""
    assert len({ids.study(str(i)) for i in range(20_000)}) == 20_000


def test_another_key_gives_other_codes_and_another_mark(key: dict[str, str], tmp_path: Path) -> None:
    ids, other = pseudonyms(environ=key), pseudonyms(environ={KEY_VARIABLE: str(tmp_path / "b.key")})
    assert ids.study("1") != other.study("1") and ids.facts()["key"] != other.facts()["key"]
    assert ids.facts()["strict"] is True and ids.key is not None and ids.facts()["key"] not in ids.key.hex()


def test_without_a_key_everything_stays_as_it_is(tmp_path: Path) -> None:
    ids = pseudonyms(False, environ={KEY_VARIABLE: str(tmp_path / "none.key")})
    assert (ids.study("1"), ids.subject("2"), ids.file("a/b.png")) == ("1", "2", "a/b.png")
    assert ids.facts() == {"strict": False} and not (tmp_path / "none.key").exists()


def test_the_key_is_never_shown(key: dict[str, str]) -> None:
    ids = pseudonyms(environ=key)
    assert ids.key is not None and ids.key.hex()[:8] not in repr(ids) and str(ids.key) not in repr(ids)
    assert pickle.loads(pickle.dumps(ids)).study("1") == ids.study("1")  # noqa: S301 - loader processes are given it


def test_where_the_key_is() -> None:
    assert key_file({"XDG_CONFIG_HOME": "/x"}) == Path("/x/medssml/privacy.key")
    assert key_file({}) == Path.home() / ".config" / "medssml" / "privacy.key"
    assert key_file({KEY_VARIABLE: "/y/k", "XDG_CONFIG_HOME": "/x"}) == Path("/y/k")


def test_a_key_in_the_folder_of_results_is_refused(tmp_path: Path) -> None:
    inside = {KEY_VARIABLE: str(tmp_path / "run" / "privacy.key")}
    with pytest.raises(PrivacyError, match="lies in the folder of results.*fix: set MEDSSML_PRIVACY_KEY"):
        pseudonyms(out=tmp_path / "run", environ=inside)
    assert not (tmp_path / "run").exists()
    assert pseudonyms(out=tmp_path / "run2", environ=inside).strict


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [("00" * 32, 0o644, "others may read.*chmod 600"), ("00" * 31, 0o600, "62 characters"), ("none", 0o600, "damaged")],
)
def test_a_key_that_cannot_be_used_is_refused(key: dict[str, str], content: str, mode: int, message: str) -> None:
    path = Path(key[KEY_VARIABLE])
    path.parent.mkdir()
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(PrivacyError, match=message) as caught:
        pseudonyms(environ=key)
    assert "fix: " in str(caught.value) and content not in str(caught.value) and caught.value.exit_code == 2


def test_a_key_that_cannot_be_made_says_the_ways_out(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PrivacyError, match="cannot be made.*fix: set MEDSSML_PRIVACY_KEY.*--plain-ids"):
        pseudonyms(environ={KEY_VARIABLE: str(tmp_path / "file" / "privacy.key")})
    assert os.listdir(tmp_path) == ["file"]


def test_short_codes_never_show_an_id() -> None:
    assert short_code("s0123456789abcdef") == "s01234567"
    assert short_code("P-17") == short_code("P-17") != short_code("P-18")
    assert re.fullmatch(r"[0-9a-f]{8}", short_code("P-17"))


@pytest.mark.parametrize(
    ("problem", "kept"),
    [
        ("gap 5.0 mm after slice 5, step 2.5 mm", "gap 5.0 mm after slice 5, step 2.5 mm"),
        ("'Mueller.eeg' is not beside it", "(...) is not beside it"),
        ('study "O\'Neill" is already in row 3', "study (...) is already in row 3"),
        ("EEG cannot be decoded (ValueError: bad value Mueller in x)", "EEG cannot be decoded (ValueError)"),
        ("UnicodeDecodeError: Mueller, Anna", "UnicodeDecodeError"),
        ("ward 7/Mueller^Anna/scan01.nii.gz ends early", "(...) ends early"),
        ("scan01 of MRN-0815 ends early", "(...) of (...) ends early"),
    ],
)
def test_a_problem_loses_its_names_and_keeps_its_figures(problem: str, kept: str, key: dict[str, str]) -> None:
    ids = pseudonyms(environ=key)
    file = "ward 7/Mueller^Anna/scan01.nii.gz"
    whole = Problem(7, "MRN-0815", "ct", file, "damaged", problem, f"copy {file} again")
    (found,) = redacted([whole], ids)
    assert (found.row, found.column, found.code, found.action) == (7, "ct", "damaged", "quarantined")
    assert (found.study_id, found.file, found.problem) == (ids.study("MRN-0815"), ids.file(file), kept)
    assert found.fix == "copy (...) again"
    assert redacted([whole], Pseudonyms()) == [whole]
