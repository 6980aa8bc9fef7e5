"""The page of a check: everything that was found, nothing that it must not say, nothing from elsewhere."""

import re

import nibabel as nib
import numpy as np
import pytest
from edfio import Edf, EdfSignal
from PIL import Image

from medssml.verbs.check import check
from tests.reports.test_report import Page

AFFINE = np.array([[-4, 0, 0, 62], [0, -4, 0, 61], [0, 0, 5, -300], [0, 0, 0, 1.0]])
SECRET = "Grueneberg"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sites: odd files of every kind, an image that is in two splits, and a name in ids, file names and a report."""
    root = tmp_path_factory.mktemp("cohort")
    rng = np.random.default_rng(0)
    rows = ["subject_id,study_id,split,site,ct,xray,eeg,report,label_ill"]
    for number in range(24):
        stem = f"{SECRET}{number:02d}"
        volume = rng.integers(0 if number == 3 else -1000, 256 if number == 3 else 400, (32, 32, 13)).astype(np.int16)
        nib.save(nib.Nifti1Image(volume, AFFINE), root / f"{stem}.nii.gz")
        size = (40, 40) if number == 4 else (128, 96 if number < 12 else 128)
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(root / f"{stem}.png")
        signals = [
            EdfSignal(rng.normal(0, 20, 1000 + 100 * number), 50 if number == 5 else 100, label=c) for c in ("Cz", "Pz")
        ]
        Edf(signals).write(root / f"{stem}.edf")
        (root / f"{stem}.txt").write_text(f"FINDINGS: {SECRET} was here {number} times")
        site, split = ("north", "train") if number < 12 else ("south", "test")
        files = ",".join(f"{stem}.{suffix}" for suffix in ("nii.gz", "png", "edf", "txt"))
        rows.append(f"{stem},s{stem},{split},{site},{files},{number % 2}")
    (root / f"{SECRET}23.png").write_bytes((root / f"{SECRET}00.png").read_bytes())
    rows.append(f"{SECRET}00,s{SECRET}x,test,north,,,,,")
    (root / "manifest.csv").write_text("\n".join(rows) + "\n")
    return root


@pytest.fixture(scope="module")
def text(folder):
    out = folder / "page" / "check.html"
    assert check(folder / "manifest.csv", deep=True, problems=folder / "p.csv", report=out) == 3
    return out.read_text(encoding="utf-8")


def test_the_page_is_whole_and_loads_nothing(text):
    page = Page(text)
    assert set(page.ids) >= {"problems", "odd", "coverage", "distributions", "differences", "protocol"}
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert all(load.startswith(("data:image/png;base64,", "#")) for load in page.loads)


def test_the_page_tells_problems_with_their_fix_and_where_every_row_went(text):
    words = " ".join(Page(text).words)
    for said in (
        "not HU",
        "export the volume in HU",
        "image size 40 x 40 pixels",
        "sampling rate 50 Hz",
        "byte for byte",
        "one split per subject",
        "refused: the table is wrong: training does not start",
    ):
        assert said in words, said
    numbers = re.findall(r"<dt>(\w+)</dt><dd>([\d,]+)</dd>", text)
    assert dict(numbers) == {
        "rows": "25",
        "accepted": "23",
        "quarantined": "1",
        "refused": "1",
        "problems": dict(numbers)["problems"],
    }


def test_odd_files_are_shown_beside_their_copies(text):
    captions = re.findall(r'alt="([^"]*)"', text)
    assert "row 2, train" in captions and "row 25, test: copy of row 2" in captions
    assert {"row 5", "row 6", "row 7"} <= set(captions)  # the CT, the radiograph and the EEG that are odd


def test_the_page_names_the_number_by_which_the_sites_differ_and_no_other(text):
    section = text[text.index('id="differences"') : text.index('id="protocol"')]
    cells = re.findall(r"<td[^>]*><span>([^<]*)</span></td>", section)
    assert "width, pixels" in cells and "length, s" in cells and "north" in cells
    assert "spacing of slices, mm" not in cells and "height, pixels" not in cells


def test_the_page_begins_with_whether_training_can_start_and_shows_the_classes(text):
    head = text[text.index("<header>") : text.index("</header>")]
    assert "training does not start" in head and "worth a look, used as they are" in head
    assert "<b>ill</b>" in head and "few training studies of a class: 0: 6, 1: 6." in head
    section = text[text.index('id="labels"') : text.index('id="distributions"')]
    assert "Classes of ill in each split" in section
    rows = re.findall(r"<tr>(.*?)</tr>", section)
    cells = [re.findall(r"<span>([^<]*)", row) for row in rows]
    assert ["ill", "train", "0", "6", "50.0 %"] in cells


def test_no_name_is_on_the_page(text):
    assert SECRET not in text and SECRET.lower() not in text.lower()


def test_a_table_that_is_refused_as_a_whole_still_has_a_page(tmp_path):
    (tmp_path / "m.csv").write_text("a,b\n1,2\n")
    out = tmp_path / "check.html"
    assert check(tmp_path / "m.csv", problems=tmp_path / "p.csv", report=out) == 3
    assert "the table has no such column" in " ".join(Page(out.read_text(encoding="utf-8")).words)
