"""A missing file, and the one that is there under a name that looks the same."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from medssml.readers.errors import ReadError, require_file
from medssml.readers.near_names import near_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in (
        "img/a.png",
        "img/scan b.png",
        unicodedata.normalize("NFD", "img/mü.png"),
        "img/two.nii.gz",
        "img/two.txt",
    ):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(b"1")
    return tmp_path


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("img\\a.png", "backslashes: 'img/a.png' is there"),
        (".\\img\\a.png", "backslashes: 'img/a.png' is there"),
        ("img/A.PNG", "'img/a.png' differs in capitals"),
        ("IMG/a.png", "'img/a.png' differs in capitals"),
        (unicodedata.normalize("NFC", "img/mü.png"), "in another Unicode form (NFD, as macOS writes it)"),
        ("img/scan%20b.png", "%20 stands for a blank"),
        ("img/a", "'img/a.png' is there"),
        ("img/a.jpg", "'img/a.png' is there"),
        ("img/two", ""),
        ("old/server/img/a.png", "'img/a.png' is there: the first folders of the path are not"),
        ("pictures/b.png", "there is no folder 'pictures'"),
        ("img/q.png", ""),
        ("img/../img/A.png", "'img/a.png' differs in capitals"),
    ],
)
def test_what_is_there_instead(root: Path, cell: str, says: str) -> None:
    near = near_name(root / cell)
    assert says in near if says else near == "", near


def test_the_reason_of_a_missing_file_says_it(root: Path) -> None:
    with pytest.raises(ReadError, match="no such file; 'img/a.png' differs in capitals; fix: correct") as caught:
        require_file(root / "img/A.png")
    assert caught.value.code == "missing"
    with pytest.raises(ReadError, match="no such file; there is no folder 'a.png'"):
        require_file(root / "img" / "a.png" / "b.png")
