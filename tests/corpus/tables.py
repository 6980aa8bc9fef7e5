"""Manifests: study tables with one fault each, and controls."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from tests.corpus.case import Case, put

HEAD = "subject_id,study_id,split,ct,report,label_sick\n"
ROWS = "a,1,train,a.nii,,0\nb,2,test,,b.txt,1\n"
Maker = Callable[[Path], Path]


def table(content: str | bytes, name: str = "m.csv") -> Maker:
    return lambda folder: put(folder / name, content)


def _parquet(**columns: object) -> Maker:
    def make(folder: Path) -> Path:
        pd.DataFrame(columns).to_parquet(folder / "m.parquet")
        return folder / "m.parquet"

    return make


def _linked(folder: Path) -> Path:
    put(folder / "secret.txt", "x")
    (folder / "root").mkdir()
    os.symlink(folder / "secret.txt", folder / "root" / "a.txt")
    return put(folder / "root" / "m.csv", "subject_id,study_id,report\na,1,a.txt\n")


def _cut_parquet(folder: Path) -> Path:
    path = _parquet(subject_id=["a"], study_id=["1"])(folder)
    return put(path, path.read_bytes()[:-30])


def _near(name: str) -> Maker:
    return table(f"subject_id,study_id,{name}\na,1,x\n")


#: name, maker, what the message says; where it is about a row and a column, it names them.
REFUSED: list[tuple[str, Maker, str]] = [
    ("missing", lambda f: f / "none.csv", "cannot be read"),
    ("folder", lambda f: f, "cannot be read"),
    ("empty", table(""), "file is empty"),
    ("blank lines", table("\n\n\n"), "file is empty"),
    ("utf-16 cut", table((HEAD + ROWS).encode("utf-16")[:-1]), "row 1: .*damaged UTF-16"),
    ("two encodings", table((HEAD + "ä,3,,,,\n").encode() + "ö,4,,,,\n".encode("latin-1")), "row 3: line 3 .*two encodings"),
    ("mac roman", table((HEAD + "ä ö ü,3,,,,\n").encode("mac_roman")), "row 2: line 2 holds the byte 0x8a.*which code"),
    ("cyrillic", table((HEAD + "\u0436\u0438\u0437\u043d\u044c,3,,,,\n").encode("cp1251")), "row 2: line 2 .*which code"),
    ("workbook", table(b"PK\x03\x04" + bytes(range(200))), "workbook"),
    ("semicolons in a row", table((HEAD + ROWS).replace(",", ";") + "c;3;train;;;0;7\n"), "row 4: line 4 has 7 cells.*semicolon"),
    ("decimal commas", table("subject_id;study_id;label_age\na;1;63,5\n"), "row 2, column 'label_age': '63,5'"),
    ("one name twice", table("subject_id,study_id,ct,CT\na,1,,\n"), "column 'CT': 'ct', 'CT' are the one column 'ct'"),
    ("one id twice", table("Subject ID,subject_id,study_id\na,b,1\n"), "are the one column 'subject_id'"),
    ("binary", table(bytes(range(256)) * 9), "binary"),
    ("late zero byte", table(HEAD + ROWS * 900 + "c,\0,,,,\n"), "NUL|line|binary"),
    ("png", table(b"\x89PNG\r\n\x1a\n" + bytes(99)), "binary|not UTF-8"),
    ("unclosed quote", table(HEAD + 'a,"1,train,,,0\nb,2,test,,,\n'), "row 2: line 2: .*not closed"),
    ("quote in a cell", table(HEAD + 'a,"1"x,train,,,0\n'), "row 2: line 2"),
    ("cell of 1 MB", table(HEAD + f"a,{'1' * 1_000_000},train,,,\n"), "row 2: line 2"),
    ("short row", table(HEAD + ROWS + "c,3\n"), "row 4: line 4 has 2 cells, the header has 6"),
    ("long row", table(HEAD + "a,1,train,a.nii,,0,7\n"), "row 2: line 2 has 7 cells"),
    ("no subject", table("study_id,ct\n1,a\n"), "row 1, column 'subject_id': .*no such column"),
    ("no study", table("subject_id,ct\n1,a\n"), "column 'study_id'"),
    ("header alone of numbers", table("1,2,3\n4,5,6\n"), "no such column"),
    ("column twice", table("subject_id,study_id,ct,ct\na,1,,\n"), "column 'ct': the table has this column twice"),
    *[(f"near miss {name}", _near(name), f"column '{name}': .*did you mean '{right}'") for name, right in (
        ("repot", "report"), ("xrays", "xray"), ("lable_x", "label_x"), ("Splitt", "split"), ("egg", "eeg"),
        ("gruop_sex", "group_sex"),
    )],
    ("study twice", table("subject_id,study_id\na,1\nb,1\n"), "row 3, column 'study_id': study '1' is already in row 2"),
    ("empty subject", table("subject_id,study_id\n,1\n"), "row 2, column 'subject_id': is empty"),
    ("empty study", table("subject_id,study_id\na, \n"), "row 2, column 'study_id': is empty"),
    ("mangled id", table("subject_id,study_id\n1.23E+11,1\n"), "row 2, column 'subject_id': .*spreadsheet"),
    ("reference error", table("subject_id,study_id\n#REF!,1\n"), "spreadsheet"),
    ("two splits", table("subject_id,study_id,split\na,1,train\na,2,test\n"), "row 3, column 'split': subject 'a' is in"),
    ("unknown split", table("subject_id,study_id,split\na,1,valid\nb,2,test\n"), "row 2, column 'split': 'valid' is no split"),
    ("half a split", table("subject_id,study_id,split\na,1,train\nb,2,\n"), "row 3, column 'split': is empty while"),
    ("label a word", table("subject_id,study_id,label_t\na,1,0\nb,2,yes\n"), "row 3, column 'label_t'"),
    ("label infinite", table("subject_id,study_id,label_t\na,1,0\nb,2,inf\n"), "row 3, column 'label_t'"),
    ("label uncertain", table("subject_id,study_id,label_t\na,1,0\nb,2,-1\n"), "row 3, column 'label_t': .*uncertain"),
    ("label huge", table("subject_id,study_id,label_t\na,1,0\nb,2,1e999\n"), "row 3, column 'label_t'"),
    ("path up", table("subject_id,study_id,ct\na,1,../x.nii\n"), "row 2, column 'ct': .*leaves the data root"),
    ("path up inside", table("subject_id,study_id,ct\na,1,b/../../x.nii\n"), "leaves the data root"),
    ("absolute path", table("subject_id,study_id,ct\na,1,/etc/passwd\n"), "row 2, column 'ct': .*absolute path"),
    ("link out", _linked, "row 2, column 'report': .*link that leaves"),
    ("report and text", table("subject_id,study_id,report,report_text\na,1,r.txt,text\n"), "row 2, column 'report_text'"),
    ("parquet cut", _cut_parquet, "cannot be read as Parquet"),
    ("parquet of text", table("no parquet", "m.parquet"), "cannot be read as Parquet"),
    ("parquet numbers", _parquet(subject_id=[7, 8], study_id=["1", "2"]), "column 'subject_id': .*leading zeros"),
    ("parquet floats", _parquet(subject_id=["a", "b"], study_id=[1.0, 2.0]), "column 'study_id': .*leading zeros"),
]  # fmt: skip


def _is(**columns: list[str]) -> Callable[[Any], None]:
    """An oracle: the table has these cells."""

    def check(manifest: Any) -> None:
        for name, cells in columns.items():
            assert manifest.table[name].tolist() == cells, name

    return check


COLUMNS: dict[str, object] = {"subject_id": ["a", "b"], "study_id": ["1", "2"], "split": ["train", "test"]}
COLUMNS |= {"ct": ["a.nii", None], "report": [None, "b.txt"]}
usual = _is(subject_id=["a", "b"], study_id=["1", "2"], split=["train", "test"], ct=["a.nii", ""], report=["", "b.txt"])
ACCEPTED: list[tuple[str, Maker, Callable[[Any], None]]] = [
    ("plain", table(HEAD + ROWS), usual),
    ("byte-order mark", table((HEAD + ROWS).encode("utf-8-sig")), usual),
    ("windows line ends", table((HEAD + ROWS).replace("\n", "\r\n")), usual),
    ("old mac line ends", table((HEAD + ROWS).replace("\n", "\r")), usual),
    ("blanks around", table((HEAD + ROWS).replace(",", " , ")), usual),
    ("blank lines between", table((HEAD + ROWS).replace("\n", "\n\n")), usual),
    ("quoted", table('subject_id,"study_id",split,ct,report\n"a","1",train,"a.nii",""\nb,2,"test",,"b.txt"\n'), usual),
    ("spellings of nothing", table((HEAD + ROWS).replace("a.nii,,", "a.nii,NaN,").replace("test,,", "test,NA,")), usual),
    ("leading zeros", table("subject_id,study_id\n007,0010\n7,010\n"), _is(subject_id=["007", "7"], study_id=["0010", "010"])),
    ("ids of words", table("subject_id,study_id\nNA,null\nTrue,1e5\n"), _is(subject_id=["NA", "True"], study_id=["null", "1e5"])),
    ("inside and out again", table("subject_id,study_id,ct\na,1,b/../a.nii\n"), _is(ct=["b/../a.nii"])),
    ("text of lines", table('subject_id,study_id,report_text\na,1,"No,\nnothing"\n'), _is(report_text=["No,\nnothing"])),
    ("parquet", _parquet(**COLUMNS), usual),
    ("rows below", table(HEAD + ROWS + ",,,,,\n,,,,,\n"), usual),
    ("a quote before a formula", table("subject_id,study_id\n'=1+1,'-x\n"), _is(subject_id=["=1+1"], study_id=["-x"])),
]  # fmt: skip
SEMI, WORDS = (HEAD + ROWS).replace(",", ";"), "Subject ID,STUDY_ID,Split,CT,Report,Label Sick\n"
LATIN = (HEAD + ROWS).replace("a,", "\u00e4,").replace("b,", "\u00df,")
latin = _is(subject_id=["\u00e4", "\u00df"], study_id=["1", "2"])
#: name, maker, what the manifest says of it, oracle.
SAVED: list[tuple[str, Maker, str, Callable[[Any], None]]] = [
    ("semicolons", table(SEMI), "separated by semicolons", usual),
    ("semicolons with their directive", table("sep=;\r\n" + SEMI.replace("\n", "\r\n")), "'sep=;' before the header", usual),
    ("tabs", table((HEAD + ROWS).replace(",", "\t"), "m.tsv"), "separated by tabs", usual),
    ("quoted commas among semicolons", table(SEMI + 'c;3;train;"d,e.nii";;\n'), "semicolons", _is(subject_id=["a", "b", "c"])),
    ("utf-16", table((HEAD + ROWS).encode("utf-16")), "UTF-16", usual),
    ("utf-16 of the other order", table(b"\xfe\xff" + (HEAD + ROWS).encode("utf-16-be")), "UTF-16", usual),
    ("utf-16 without a mark", table((HEAD + ROWS).encode("utf-16-le")), "UTF-16", usual),
    ("utf-16 with tabs", table((HEAD + ROWS).replace(",", "\t").encode("utf-16")), "separated by tabs", usual),
    ("latin-1", table(LATIN.encode("latin-1")), "Windows-1252", latin),
    ("windows-1252",
     table((LATIN + "\u00fc,3,val,\u00d6-\u20ac,,\n").encode("cp1252")), "5 letters", _is(ct=["a.nii", "", "\u00d6-\u20ac"])),
    ("capitals and blanks", table(WORDS + ROWS), "'Subject ID' as subject_id", usual),
    ("capitals of a label", table(WORDS + ROWS), "'Label Sick' as label_Sick", _is(label_Sick=["0", "1"])),
    ("empty columns", table((HEAD + ROWS).replace("\n", ",,\n")), "2 columns without a name", usual),
]  # fmt: skip


def cases() -> list[Case]:
    found = [Case("manifest", name, "refused", make, says) for name, make, says in REFUSED]
    found += [Case("manifest", name, "fixed", make, says, oracle) for name, make, says, oracle in SAVED]
    return found + [Case("manifest", name, "accepted", make, "", oracle) for name, make, oracle in ACCEPTED]
