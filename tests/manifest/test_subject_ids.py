"""Who is whom: ids that were mangled or rounded, one person under two spellings, one word for everybody."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from medssml.checks.cohort_check import check_manifest
from medssml.manifest.manifest import Manifest, ManifestError
from medssml.manifest.subject_ids import odd_ids, spelling_key


def manifest(folder: Path, *rows: str, head: str = "subject_id,study_id,split") -> Manifest:
    path = folder / "m.csv"
    path.write_text("\n".join([head, *rows]) + "\n", encoding="utf-8")
    return Manifest.read(path)


def codes(read: Manifest) -> list[tuple[int, str, str]]:
    found = check_manifest(read, workers=0)
    return [(p.row, p.column, p.code) for p in found if p.code in ("spelling", "rounded_ids", "one_subject")]


@pytest.mark.parametrize(
    "id",
    ['"1,23E+11"', "1.23e+11", "1.2345678901234568e+16", "1E+05", "#BEZUG!", "#NV", "#DIV/0!", "2026-03-01 00:00:00"],
)
def test_what_a_spreadsheet_or_a_program_left_is_refused(tmp_path: Path, id: str) -> None:
    with pytest.raises(ManifestError, match="mangled by a spreadsheet or rounded, several people may have it"):
        manifest(tmp_path, f"{id},1,train", "b,2,train")


@pytest.mark.parametrize("id", ["12E5", "1E10", "#1", "E+1", "2026-03-01", "A-1E+5"])
def test_what_is_an_id_stays_one(tmp_path: Path, id: str) -> None:
    assert manifest(tmp_path, f"{id},1,train").subject_ids[0] == id


@pytest.mark.parametrize("head", ["subject_id,study_id,split", "subject_id,study_id,note"])
def test_a_number_and_its_float_are_refused_with_both_rows(tmp_path: Path, head: str) -> None:
    with pytest.raises(
        ManifestError, match=r"row 2, column 'subject_id': '10000032.0' and '10000032' in row 3 are one number"
    ):
        manifest(tmp_path, "10000032.0,1,train", "10000032,2,test", head=head)
    with pytest.raises(ManifestError, match=r"row 3, column 'study_id': '7.00' and '7' in row 2"):
        manifest(tmp_path, "a,7,train", "b,7.00,test", head=head)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("00123", "123"),
        ("P001", "p001"),
        ("P-001", "P001"),
        ("P 1", "P0001"),
        ("１２", "12"),
        ("7.0", "007"),
        ("a_b", "A-B"),
    ],
)
def test_two_spellings_are_flagged_with_both_rows(tmp_path: Path, first: str, second: str) -> None:
    read = manifest(tmp_path, f"{first},1,train", "X9,2,val", f"{second},3,test")
    found = [p for p in check_manifest(read, workers=0) if p.code == "spelling" and p.row]
    assert [(p.row, p.study_id, p.action) for p in found] == [(4, "3", "flagged")]
    assert repr(first) in found[0].problem and "in row 2" in found[0].problem
    assert "one in train, one in test" in found[0].problem
    hashed = manifest(tmp_path, f"{first},1,x", f"{second},3,x", head="subject_id,study_id,note")
    assert any(code == "spelling" for _, _, code in codes(hashed)), "the same where a hash parts them"


def test_different_people_are_not_one(tmp_path: Path) -> None:
    ids = ["1-11", "11-1", "A1", "B1", "p10", "p100", "é1", "S1+", "S1*", "1.2.840.1", "1.2.840.10"]
    assert len({spelling_key(id) for id in ids}) == len(ids)
    assert codes(manifest(tmp_path, *(f"{id},{n},train" for n, id in enumerate(ids)))) == []


def test_studies_are_compared_within_a_subject(tmp_path: Path) -> None:
    assert codes(manifest(tmp_path, "a,001,train", "b,1,test")) == []
    assert codes(manifest(tmp_path, "a,001,train", "a,1,train")) == [(3, "study_id", "spelling")]


def test_ids_that_lost_digits_are_flagged(tmp_path: Path) -> None:
    excel = manifest(tmp_path, "123456789012345000,1,train", "123456789098765000,2,test")
    assert codes(excel) == [(0, "subject_id", "rounded_ids")]
    floats = [int(float(98765432109876543 + 1234567 * n)) for n in range(4)]
    assert codes(manifest(tmp_path, *(f"{id},{n},train" for n, id in enumerate(floats)))) == [
        (0, "subject_id", "rounded_ids")
    ]
    whole = [98765432109876543 + 1234567 * n for n in range(4)]
    assert codes(manifest(tmp_path, *(f"{id},{n},train" for n, id in enumerate(whole)))) == []
    assert codes(manifest(tmp_path, "1001.0,1,train", "1002.0,2,train")) == [(0, "subject_id", "spelling")]


@pytest.mark.parametrize(
    ("subjects", "says"),
    [
        (["ANONYMOUS"] * 3, "all 3 studies are of one subject ('ANONYMOUS' looks like the word of an anonymiser)"),
        (["0000", "0000", "a", "b"], "2 of 4 studies are of one subject ('0000' looks like"),
        (["p7"] * 6, "all 6 studies are of one subject ('p7')"),
        (["p7"] * 15 + ["q"] * 5, "15 of 20 studies are of one subject ('p7')"),
        (["p7"] * 5, ""),
        (["p7"] * 9 + ["q"] * 5, ""),
        (["anon1", "anon2"], ""),
    ],
)
def test_one_subject_for_all(subjects: list[str], says: str) -> None:
    table = pd.DataFrame(
        {"subject_id": subjects, "study_id": [f"s{n}x" for n in range(len(subjects))], "split": "train"}
    )
    found = [odd.text for odd in odd_ids(table) if odd.code == "one_subject"]
    assert says in found[0] if says else found == []
