"""Any table: what its columns are is guessed by name and content, shown, and can be said instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml import cli
from medssml.importers import LayoutError
from medssml.importers.columns import classes_of
from tests.importers.trees import put, run

WIDE = """MRN,StudyInstanceUID,CT file,Frontal image,Lateral image,EEG path,Report,Sex,Age,diagnosis,mask_path,ecg_text
007,1.2.3,ct/a.nii.gz,x/a.png,x/a_lat.png,e/a.edf,"No acute finding, heart size normal.",F,61,benign,m/a.nii.gz,sinus
007,1.2.4,,x/b.png,,,,F,62,malignant,,
8,1.2.5,ct/gone.nii.gz,,,,Small effusion on the left side.,M,50,,,
,1.2.6,,x/b.png,,,,M,50,,,
9,1.2.7,,,,,,M,50,benign,,
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    files = ("ct/a.nii.gz", "x/a.png", "x/a_lat.png", "x/b.png", "e/a.edf", "m/a.nii.gz")
    return put(tmp_path / "hospital", {"table.csv": WIDE, **dict.fromkeys(files, b"1")})


def test_columns_are_guessed_and_the_guess_is_shown(root: Path) -> None:
    made = run("csv", root / "table.csv")
    assert list(made.rows) == ["1.2.3", "1.2.4", "1.2.5"]
    row = made.rows["1.2.3"]
    assert row["subject_id"] == "007" and row["ct"] == "ct/a.nii.gz" and row["eeg"] == "e/a.edf"
    assert (row["xray"], row["xray_lateral"]) == ("x/a.png", "x/a_lat.png")
    assert (
        row["report_text"] == "No acute finding, heart size normal." and row["group_sex"] == "F" and row["Age"] == "61"
    )
    assert row["mask_path"] == "m/a.nii.gz" and row.get("other_files", "") == "", "a mask is no input"
    assert [made.rows[name]["label_diagnosis"] for name in made.rows] == ["0", "1", ""]
    said = "\n".join(made.done.notes)
    for words in (
        "subject_id <- 'MRN'",
        "study_id <- 'StudyInstanceUID'",
        "ct <- 'CT file'",
        "0 = benign, 1 = malignant",
    ):
        assert words in said
    assert made.why(source="table.csv", row=5) == "no subject"
    assert made.why(source="table.csv", row=6) == "nothing of the study is on disk"
    gone = [line for line in made.lines if line["file"] == "ct/gone.nii.gz"]
    assert [(line["row"], line["reason"]) for line in gone] == [("4", "no such file")]


def test_a_column_that_is_given_overrules_the_guess(root: Path) -> None:
    made = run("csv", root / "table.csv", columns={"ct": "mask_path", "subject_id": "StudyInstanceUID"})
    assert made.rows["1.2.3_1"]["ct"] == "m/a.nii.gz", "the study is the row, where its column is the subject"
    with pytest.raises(KeyError, match="no such column; the table has MRN"):
        run("csv", root / "table.csv", columns={"ct": "CT_file"})


def test_a_study_of_laboratory_values_alone_is_a_study(tmp_path: Path) -> None:
    table = "subject_id,study_id,report,CRP,LDH,label\nq1,v1,Lungs are clear and the heart is normal,5.3,200,pos\n"
    table += "q3,v3,,88.0,410,neg\nq4,v4,,,,pos\n"
    numbers = {"table_crp": "CRP", "table_ldh": "LDH"}
    made = run("csv", put(tmp_path / "mixed", {"t.csv": table}) / "t.csv", columns=numbers, max_lost=1.0)
    assert made.manifest.modalities == ("report", "table") and made.manifest.present.tolist() == [
        [True, True],
        [False, True],
    ]
    assert made.why(source="t.csv", row=3) == "" and "on disk" in made.why(source="t.csv", row=4)
    labs = put(tmp_path / "labs", {"t.csv": "subject_id,study_id,CRP\nq1,v1,5.3\nq2,v2,4.1\n"}) / "t.csv"
    assert run("csv", labs, columns={"table_crp": "CRP"}).manifest.modalities == ("table",)


def test_a_column_name_twice_is_refused_and_one_without_a_name_is_said(tmp_path: Path) -> None:
    twice = "subject_id,study_id,report, report \nq1,v1,Lungs are clear and normal,Addendum: a nodule of 9 mm\n"
    with pytest.raises(LayoutError, match=r"a column name more than once: 'report' in columns 3, 4; fix: rename"):
        run("csv", put(tmp_path / "twice", {"t.csv": twice}) / "t.csv")
    nameless = ",subject_id,study_id,report,,\n0,q1,v1,Lungs are clear and normal,Addendum,\n"
    made = run("csv", put(tmp_path / "nameless", {"t.csv": nameless}) / "t.csv")
    assert any("column 1, 5, 6 has no name; its 2 cells are left out" in note for note in made.done.notes)


def test_a_cell_with_one_wrong_byte_loses_no_more(tmp_path: Path) -> None:
    text = "Herzgröße normal und kein Pleuraerguß, Ödem möglich"
    rows = ["patient,study,report", f'1,a,"{text} – x"', f'2,b,"{text}"', f'3,c,"{text}"']
    parts = [row.encode() for row in rows]
    parts[1] = parts[1].replace("–".encode(), b"\x96")
    parts[2] = rows[2].encode("latin-1")
    made = run("csv", put(tmp_path / "bytes", {"t.csv": b"\n".join(parts)}) / "t.csv")
    assert [row["report_text"] for row in made.rows.values()] == [f"{text} – x", text, text]
    assert any("t.csv: 2 cells are not UTF-8" in note for note in made.done.notes)


def test_rows_of_one_study_are_one_study(tmp_path: Path) -> None:
    table = "patient_id;study;image;view;split\n1;s1;a.png;Lateral;train\n1;s1;b.png;PA;train\n2;s2;c.png;AP;test\n"
    table += "3;s1;c.png;AP;val\n"
    root = put(tmp_path / "rows", {"t.csv": "\ufeff" + table, **dict.fromkeys(("a.png", "b.png", "c.png"), b"1")})
    made = run("csv", root)
    row = made.rows["s1"]
    assert (row["xray"], row["xray_lateral"], row["group_view"]) == ("b.png", "a.png", "PA")
    assert {name: row["split"] for name, row in made.rows.items()} in (
        {"s1": "train", "s2": "test"},
        {"s1": "val", "s2": "test"},
    )
    assert made.why(source="t.csv", row=5) == "study s1 is of another subject in an earlier row"


def test_sections_in_columns_become_one_report(tmp_path: Path) -> None:
    table = 'patient,findings,impression\n1,"The lungs are clear today.",Normal chest without any finding.\n'
    made = run("csv", put(tmp_path / "sections", {"t.csv": table}) / "t.csv")
    assert (
        made.rows["1_1"]["report_text"]
        == "FINDINGS: The lungs are clear today.\nIMPRESSION: Normal chest without any finding."
    )


def test_paths_stay_inside_the_root(tmp_path: Path) -> None:
    secret = put(tmp_path, {"secret.png": b"1", "root/a.png": b"1"})
    inside = tmp_path / "root" / "a.png"
    table = f"subject,study,image\n1,a,{inside}\n2,b,../secret.png\n3,c,{secret}/secret.png\n4,d,.\\a.png\n"
    root = put(tmp_path / "root", {"t.csv": table})
    made = run("csv", root)
    assert {name: row["xray"] for name, row in made.rows.items()} == {"a": "a.png", "d": "a.png"}
    reasons = {line["file"]: line["reason"] for line in made.lines if line["reason"] and line["study_id"] == ""}
    assert reasons["../secret.png"].startswith("outside the root") and len(reasons) == 2
    assert run("csv", root, allow_outside=True).rows["b"]["xray"] == "../secret.png"


def test_broken_rows_and_odd_columns_are_kept_in_mind(tmp_path: Path) -> None:
    table = "subject_id,study_id,xray,repot,source\n1,a,a.png,x,site A\n2,b,a.png\n1E+05,c,a.png,x,site B\n"
    made = run("csv", put(tmp_path / "odd", {"t.csv": table, "a.png": b"1"}))
    assert list(made.rows) == ["a"] and made.rows["a"]["source_repot"] == "x" and made.rows["a"]["source"] == "site A"
    assert made.why(source="t.csv", row=3) == "the row has 3 cells, the header has 5"
    assert "mangled by a spreadsheet" in made.why(source="t.csv", row=4)


def test_a_table_without_a_subject_is_refused_with_the_flag(tmp_path: Path) -> None:
    root = put(tmp_path / "none", {"t.csv": "file\na.png\n", "a.png": b"1"})
    with pytest.raises(LayoutError, match="which column is the subject.*--column subject_id=NAME"):
        run("csv", root)
    with pytest.raises(LayoutError, match="holds 2 tables"):
        run("csv", put(root, {"u.csv": "x\n1\n"}))


def test_columns_of_numbers_are_laboratory_values(tmp_path: Path) -> None:
    """--table CRP is --column table_crp=CRP; what is no number costs the value and not the study."""
    table = "patient,study,image,CRP (mg/L),LDH,table_wbc,Note\n"
    table += "1,a,a.png,5.1,210,7,x\n2,b,a.png,<5,haemolysed,NA,y\n3,c,a.png,n/a,190,-,z\n4,d,a.png,,180,9,\n"
    root = put(tmp_path / "labs", {"t.csv": table, "a.png": b"1"})
    made = run("csv", root, columns={"table_crp_mg_l": "CRP (mg/L)", "table_ldh": "LDH"})
    found = [{n: c for n, c in row.items() if n.startswith("table_") and c} for row in made.rows.values()]
    assert found == [
        {"table_crp_mg_l": "5.1", "table_ldh": "210", "table_wbc": "7"},
        {"table_crp_mg_l": "<5"},
        {"table_ldh": "190"},
        {"table_ldh": "180", "table_wbc": "9"},
    ]
    assert [note for note in made.done.notes if "no number" in note] == [
        "table_ldh: 1 of 4 cells are no number; left empty"
    ]
    assert made.manifest.present.all() and made.manifest.modalities == ("xray", "table")
    with pytest.raises(LayoutError, match="'Note': 3 of 3 cells are no number; fix: decimals need a point"):
        run("csv", root, columns={"table_note": "Note"})


def test_the_flag_names_the_columns(tmp_path: Path) -> None:
    root = put(tmp_path / "flag", {"t.csv": "patient,image,CRP (mg/L),LDH\n1,a.png,5.1,210\n", "a.png": b"1"})
    out = tmp_path / "manifest.csv"
    flags = ["import", "csv", str(root / "t.csv"), "--out", str(out), "--table", "CRP (mg/L),LDH"]
    assert cli.main(flags) == 0
    assert "table_crp_mg_l" in out.read_text() and "table_ldh" in out.read_text()
    assert cli.main([*flags[:-1], "LDL"]) == 2


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["1", "0", ""], {"1": "1", "0": "0"}),
        (["3.50", "2"], {"3.50": "3.5", "2": "2"}),
        (["Yes", "no"], {"Yes": "1", "no": "0"}),
        (["b", "a", "c"], {"a": "0", "b": "1", "c": "2"}),
        (["a;b", "c"], None),
        (["COVID-19", ""], None),
        ([f"w{n}" for n in range(30)], None),
    ],
)
def test_words_of_a_label(cells: list[str], numbers: dict[str, str] | None) -> None:
    classes = classes_of("label_x", cells)
    assert (None if classes is None else classes.numbers) == numbers


def test_a_column_that_begins_late_is_seen(tmp_path: Path) -> None:
    """A table made of several sources, one after the other: the first 600 rows have no recording."""
    rows = "".join(f"s{n},t{n},a.png,\n" for n in range(600)) + "".join(f"e{n},u{n},,b.edf\n" for n in range(3))
    root = put(tmp_path / "t", {"t.csv": "subject,study,image,recording\n" + rows, "a.png": b"1", "b.edf": b"1"})
    made = run("csv", root, max_lost=0.0)
    assert len(made.rows) == 603 and made.rows["u2"]["eeg"] == "b.edf"


def test_a_row_is_left_out_for_what_became_of_its_file(tmp_path: Path) -> None:
    table = "subject,study,image\n1,a,a.png\n2,b,a.PNG\n3,c,/srv/old/data/a.png\n4,d,b/c.png\n"
    made = run("csv", put(tmp_path / "t", {"t.csv": table, "a.png": b"1"}))
    assert made.why(source="t.csv", row=2) == "" and list(made.rows) == ["a"]
    rows = [line for line in made.lines if line["source"] == "t.csv" and line["study_id"] and line["reason"]]
    capitals, moved, folder = (line["reason"] for line in rows)
    assert capitals.startswith("xray: no such file; ") and "differs in capitals" in capitals
    assert "no such file on this machine" in moved and "a.png' is there" in moved
    assert folder == "xray: no such file; there is no folder 'b'"
