"""Checks: every fault of a cohort in one go, each row accounted for, nothing false about sound files."""

import csv
import gzip
import os
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from edfio import Edf, EdfSignal
from PIL import Image
from scipy import ndimage

from medssml.checks.cohort_check import check_manifest
from medssml.checks.limits import Limits
from medssml.manifest.manifest import Manifest
from medssml.manifest.problems import account, write_problems
from medssml.manifest.tolerant_read import read_studies
from medssml.verbs.check import check

AFFINE = np.array([[-4, 0, 0, 46], [0, -4, 0, 45], [0, 0, 5, -300], [0, 0, 0, 1.0]])
HEADER = "subject_id,study_id,split,ct,xray,eeg,report,label_x"


def write_files(root: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        volume = rng.integers(-1000, 400, (24, 24, 12)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, AFFINE), root / f"{number}.nii.gz")
        Image.fromarray(rng.integers(0, 256, (80, 70), np.uint8)).save(root / f"{number}.png")
        signal = EdfSignal(rng.normal(0, 20, 1000), 100, label="Cz", physical_dimension="uV")
        Edf([signal]).write(root / f"{number}.edf")
        (root / f"{number}.txt").write_text(f"FINDINGS: report number {number}")


def manifest(root: Path, *rows: str) -> Path:
    path = root / "manifest.csv"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return path


@pytest.fixture
def root(tmp_path):
    write_files(tmp_path)
    return tmp_path


def found(path: Path, **options) -> dict[tuple[int, str, str], str]:
    """(row, column, code) -> action."""
    return {(p.row, p.column, p.code): p.action for p in check_manifest(Manifest.read(path), **options)}


SOUND = ("p0,s0,train,0.nii.gz,0.png,0.edf,0.txt,1", "p1,s1,test,1.nii.gz,,1.edf,1.txt,0")


@pytest.mark.parametrize("deep", [False, True])
def test_a_sound_cohort_has_no_problem(root, deep):
    assert found(manifest(root, *SOUND), deep=deep) == {}


@pytest.mark.parametrize("deep", [False, True])
def test_every_fault_in_one_go(root, deep):
    for name in ("2.nii.gz", "2.edf", "2.png"):
        data = (root / name).read_bytes()
        (root / name).write_bytes(data[: len(data) * 2 // 3])
    (root / "2.txt").write_bytes(b"")
    rows = [*SOUND, "p2,s2,train,2.nii.gz,2.png,2.edf,2.txt,", "p3,s3,val,absent.nii.gz,,,3.txt,", "p4,s4,val,,,,,1"]
    path = manifest(root, *rows)
    assert found(path, deep=deep, workers=3) == {
        (4, "ct", "truncated"): "quarantined",
        (4, "xray", "truncated"): "quarantined",
        (4, "eeg", "truncated"): "quarantined",
        (4, "report", "empty"): "quarantined",
        (5, "ct", "missing"): "quarantined",
        (6, "", "no_modality"): "flagged",
    }
    problems = check_manifest(Manifest.read(path))
    assert account(5, problems) == (5, 3, 2, 0)
    assert all(problem.problem and problem.fix for problem in problems)
    assert not any(str(root) in problem.problem + problem.file for problem in problems)


def test_only_the_deep_pass_sees_what_is_in_the_voxels(root):
    nib.save(nib.Nifti1Image(np.full((24, 24, 12), 7, np.int16), AFFINE), root / "2.nii.gz")
    path = manifest(root, "p2,s2,train,2.nii.gz,,,,")
    assert found(path) == {}
    assert found(path, deep=True) == {(2, "ct", "units"): "quarantined"}


def test_odd_sizes_are_flagged_within_limits(root):
    nib.save(nib.load(root / "0.nii.gz").slicer[:10], root / "2.nii.gz")
    path = manifest(root, "p2,s2,train,2.nii.gz,2.png,2.edf,,")
    limits = Limits(xray_pixels=(75, 100), eeg_seconds=(60, 100), eeg_sfreq_hz=(200, 300))
    assert found(path, limits=limits) == {
        (2, "ct", "size"): "flagged",
        (2, "xray", "size"): "flagged",
        (2, "eeg", "length"): "flagged",
        (2, "eeg", "rate"): "flagged",
    }
    assert found(path, limits=limits, deep=True) == found(path, limits=limits)


def test_what_a_reader_puts_right_is_listed(root):
    Image.open(root / "0.png").convert("RGBA").save(root / "2.png")
    assert found(manifest(root, "p2,s2,train,,2.png,,,"), deep=True) == {(2, "xray", "fixed"): "fixed"}


def test_one_file_in_two_splits_is_a_leak(root):
    for name in ("png", "txt"):
        (root / f"copy.{name}").write_bytes((root / f"0.{name}").read_bytes())
    rows = ["p0,s0,train,,0.png,,0.txt,", "p1,s1,test,,copy.png,,copy.txt,", "p2,s2,train,,0.png,,0.txt,"]
    assert found(manifest(root, *rows)) == {
        (3, "xray", "leak"): "flagged",
        (3, "report", "template"): "note",
        (4, "xray", "duplicate"): "flagged",  # two subjects may have the same words, never the same image
        (4, "report", "template"): "note",
    }
    words = Limits(report_copy_words=3)
    assert found(manifest(root, *rows), limits=words)[3, "report", "leak"] == "flagged"


def test_one_file_named_by_many_rows_is_read_once(root, monkeypatch):
    calls = []
    from medssml.checks import inspection

    monkeypatch.setitem(inspection.HEADERS, "xray", lambda path: calls.append(path) or _raise(path))
    rows = [f"p0,s{i},train,,0.png,,," for i in range(5)]
    problems = check_manifest(Manifest.read(manifest(root, *rows)), workers=0)
    assert len(calls) == 1 and [p.code for p in problems] == ["several", *["unreadable"] * 5]


def _raise(path):
    from medssml.readers import ReadError

    raise ReadError(path, "broken")


def test_refusals_of_the_table_and_faults_of_files_come_together(root):
    rows = [*SOUND, "p0,s5,test,,1.png,,,", "p6,s0,val,,2.png,,,", "p7,s7,val,,,,,maybe", "p8,s8,val,absent.nii.gz,,,,"]
    studies = read_studies(manifest(root, *rows))
    assert {(p.row, p.column, p.action) for p in studies.problems} == {
        (4, "split", "refused"), (5, "study_id", "refused"), (6, "label_x", "refused"),
    }  # fmt: skip
    assert studies.manifest is not None and studies.rows == 6
    problems = studies.problems + check_manifest(studies.manifest)
    assert (7, "missing") in {(p.row, p.code) for p in problems}
    assert account(studies.rows, problems) == (6, 2, 1, 3)


def test_a_table_that_is_none_is_refused_as_a_whole(tmp_path):
    for content in (b"", b"a,b\n1,2\n", b"\xff\xfes\0", b'subject_id,study_id\n"a,b\n'):
        path = tmp_path / "m.csv"
        path.write_bytes(content)
        studies = read_studies(path)
        assert studies.manifest is None and studies.problems[0].action == "refused"
        assert account(studies.rows, studies.problems).accepted == 0
    assert read_studies(tmp_path / "absent.csv").problems[0].action == "refused"


def test_the_verb_writes_the_list_and_returns_the_exit_code(root, capsys):
    path, out = manifest(root, *SOUND), root / "out" / "problems.csv"
    assert check(path, problems=out) == 0
    assert out.read_text() == "row,study_id,column,file,code,problem,action,fix\n"

    (root / "1.nii.gz").write_bytes(gzip.compress(b"no volume"))
    assert check(path, problems=out) == 4, "one of two"
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["row"] == "3" and rows[0]["study_id"] == "s1" and rows[0]["file"] == "1.nii.gz"
    text = capsys.readouterr().out
    assert "2 rows: 1 accepted, 1 quarantined, 0 refused" in text and "ct+xray+eeg+report" in text

    many = [f"q{i},t{i},train,absent{i}.nii.gz,,,," for i in range(6)]
    assert check(manifest(root, *SOUND, *many), problems=out) == 4
    assert check(manifest(root, *SOUND, SOUND[0]), problems=out) == 3
    assert check(root / "absent.csv", problems=out) == 3


def test_accounting_adds_up():
    assert account(0, []) == (0, 0, 0, 0)


def test_problems_are_written_whole(tmp_path):
    assert write_problems([], tmp_path / "a" / "p.csv").read_text().count("\n") == 1
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["p.csv"]


def test_what_may_identify_somebody_is_counted_and_never_quoted(root: Path) -> None:
    (root / "n.txt").write_text("Mrs. Zwetschge, born 01/02/1950, has no effusion. Tel. 030 1234 56.\n")
    text = (
        "subject_id,study_id,report,report_text\na,1,n.txt,\nb,2,,Dr. Zwetschge sees clear lungs.\nc,3,,Clear lungs.\n"
    )
    (root / "m.csv").write_text(text)
    found = check_manifest(Manifest.read(root / "m.csv"))
    assert [(p.row, p.column, p.code, p.action) for p in found] == [
        (2, "report", "identifiers", "flagged"), (3, "report_text", "identifiers", "flagged"),
    ]  # fmt: skip
    assert found[0].problem == "may identify somebody: date x 1, phone number x 1, name x 1"
    assert not any("Zwetschge" in str(problem) for problem in found)


# What only the whole cohort shows


def smooth(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 8)
    return (values - values.min()) / np.ptp(values)


def test_the_same_picture_in_another_format_and_size_is_a_leak(root):
    for number in range(32):
        Image.fromarray((255 * smooth(number, (200, 180))).astype(np.uint8)).save(root / f"{number}.png")
    Image.open(root / "0.png").resize((150, 160)).save(root / "again.jpg", quality=90)
    rows = [f"p{i},s{i},train,,{i}.png,,," for i in range(32)]
    path = manifest(root, *rows, "q0,t0,test,,again.jpg,,,", "p0,t1,train,,again.jpg,,,")
    problems = check_manifest(Manifest.read(path), deep=True)
    # row 35: its own subject's image is no fault, but it is also, byte for byte, that of row 34 in the test split
    assert {(p.row, p.column, p.code) for p in problems if p.row} == {(34, "xray", "leak"), (35, "xray", "leak")}
    (leak,) = [p for p in problems if p.row == 34]
    assert "file of row 2 (train here test)" in leak.problem
    assert not {key for key in found(path) if key[0] == 34}  # bytes alone do not show it
    assert (34, "xray", "leak") not in found(path, deep=True, limits=Limits(xray_near_bits=0))


def test_a_file_that_takes_too_long_is_quarantined_and_the_others_are_checked(root, monkeypatch):
    from medssml.checks import inspection

    sound = inspection.HEADERS["xray"]
    monkeypatch.setitem(inspection.HEADERS, "xray", lambda p: time.sleep(20) if p.name == "1.png" else sound(p))
    path = manifest(root, *[f"p{i},s{i},train,,{i}.png,,," for i in range(4)])
    assert found(path, limits=Limits(file_seconds=0.5)) == {(3, "xray", "budget"): "quarantined"}


def test_a_declared_size_over_the_limit_is_quarantined(root):
    path = manifest(root, *SOUND[:1])
    assert found(path, limits=Limits(file_declared_gib=1e-6)) == {
        (2, "ct", "too_large"): "quarantined",
        (2, "xray", "too_large"): "quarantined",
        (2, "eeg", "too_large"): "quarantined",
    }


def test_an_orientation_that_nobody_measured_is_flagged_beside_values_that_are_not_hu(root):
    values = np.random.default_rng(0).integers(0, 255, (40, 40, 20)).astype(np.int16)
    for name, signs in (("ras", (1, 1, 1)), ("lps", (-1, -1, 1))):
        nib.save(nib.Nifti1Image(values, np.diag([*(4 * np.array(signs)), 1.0])), root / f"{name}.nii.gz")
    path = manifest(root, "p0,s0,train,ras.nii.gz,,,,", "p1,s1,train,lps.nii.gz,,,,", "p2,s2,train,0.nii.gz,,,,")
    assert found(path, deep=True) == {
        (2, "ct", "units"): "quarantined",
        (2, "ct", "assumed"): "flagged",
        (3, "ct", "units"): "quarantined",
        (3, "ct", "assumed"): "flagged",
    }


def test_several_images_of_a_subject_are_one_line(root):
    path = manifest(root, *[f"p{i // 2},s{i},train,,{i}.png,,," for i in range(3)])
    assert found(path) == {(0, "xray", "several"): "note"}
    (several,) = check_manifest(Manifest.read(path))
    assert several.problem == "1 of 2 subjects have several (2 studies, up to 2 each)"


def test_only_the_modalities_that_are_named_are_looked_at(root, capsys):
    rows = [*SOUND, "p2,s2,val,absent.nii.gz,absent.png,absent.edf,absent.txt,1", "p3,s3,val,,,3.edf,,"]
    path, out, page = manifest(root, *rows), root / "problems.csv", root / "check.html"
    assert check(path, modalities=["ct", "xray"], problems=out, report=page) == 4, "one of four"
    with out.open() as file:
        assert [(row["column"], row["code"]) for row in csv.DictReader(file)] == [
            ("ct", "missing"),
            ("xray", "missing"),
        ]
    text = capsys.readouterr().out
    assert "looked at ct, xray only\n4 rows: 3 accepted, 1 quarantined, 0 refused" in text and "eeg" not in text
    assert "Of the modalities, ct, xray only." in page.read_text()
    assert check(path, problems=out, report=page) == 4
    assert "looked at" not in capsys.readouterr().out and "Of the modalities" not in page.read_text()

    assert check(path, modalities=["eeg"], problems=out) == 4
    assert [row.split(",")[2] for row in out.read_text().splitlines()[1:]] == ["eeg"]
    broken = manifest(root, *rows, "p3,s3,val,1.nii.gz,,,,", "p9,s9,val,../1.nii.gz,,,,")
    assert check(broken, modalities=["xray"], problems=out) == 3, "ids are looked at always"
    assert {row.split(",")[0] for row in out.read_text().splitlines()[1:]} == {"4", "6"}
    with pytest.raises(ValueError, match="no column 'ctt'; fix: name some of ct, xray, eeg, report"):
        check(path, modalities=["ctt"], problems=out)


def test_a_modality_of_another_name_can_be_looked_at(root):
    path, out = root / "m.csv", root / "problems.csv"
    path.write_text("subject_id,study_id,xray,xray_lateral,report_text\np0,s0,0.png,gone.png,Call 030 1234567\n")
    assert check(path, modalities=["xray_lateral"], problems=out) == 4
    assert [row.split(",")[2:5] for row in out.read_text().splitlines()[1:]] == [
        ["xray_lateral", "gone.png", "missing"]
    ]


def test_a_column_of_files_that_nobody_reads_is_named(root):
    path = root / "m.csv"
    path.write_text("subject_id,study_id,xray,chest_lateral,url\np0,s0,0.png,1.png,a/b\np1,s1,2.png,,c/d\n")
    assert found(path) == {(0, "chest_lateral", "unused"): "flagged"}


def test_a_kind_of_problem_is_one_group(root):
    from medssml.manifest.problems import Problem, grouped

    texts = [
        "gap 5.0 mm after slice 5",
        "gap 7.5 mm after slice 12",
        "'a.dcm': is empty",
        "'b.dcm': is empty",
        "is tilted",
    ]
    problems = [Problem(n, "s", "ct", "f", "geometry", text, "fix") for n, text in enumerate(texts)]
    assert [len(group) for group in grouped(problems)] == [2, 2, 1]


def cpu_seconds() -> float:
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


@pytest.mark.slow
def test_ten_thousand_rows_pass_the_fast_check_in_ten_seconds(root):
    rows = []
    for number in range(10_000):
        name = f"{number % 4}.{('nii.gz', 'png', 'edf', 'txt')[number % 4]}"
        folder = root / f"{number // 500}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number}_{name}").hardlink_to(root / name)
        cells = ["", "", "", ""]
        cells[number % 4] = f"{folder.name}/{number}_{name}"
        rows.append(f"p{number},s{number},train,{','.join(cells)},")
    path = manifest(root, *rows)
    started = cpu_seconds()
    problems = check_manifest(Manifest.read(path))
    # Of all processes together, as other tests keep the clock busy: two cores have 20 s of this in 10 s of the clock.
    assert cpu_seconds() - started < 15
    assert {p.code for p in problems} <= {"duplicate", "template"}
