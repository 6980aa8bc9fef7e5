"""Open-i in its three forms: one study is one subject, whichever form it comes in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from medssml.importers import LayoutError, LostError
from tests.importers.trees import put, run


def report(
    uid: str, findings: str, images: tuple[str, ...], mesh: tuple[str, ...] = ("normal",), caption: str = ""
) -> str:
    pictures = "".join(f'<parentImage id="{image}"><caption>{caption}</caption></parentImage>' for image in images)
    terms = "".join(f"<major>{term}</major>" for term in mesh)
    return (
        '<?xml version="1.0" encoding="utf-8"?><eCitation><meta type="rr"/>'
        f'<uId id="{uid}"/><MedlineCitation><Article><Abstract>'
        '<AbstractText Label="COMPARISON">None.</AbstractText><AbstractText Label="INDICATION"/>'
        f'<AbstractText Label="FINDINGS">{findings}</AbstractText>'
        '<AbstractText Label="IMPRESSION"></AbstractText></Abstract></Article></MedlineCitation>'
        f"<MeSH>{terms}<automatic>x</automatic></MeSH>{pictures}</eCitation>"
    )


def test_native_form(tmp_path: Path) -> None:
    root = put(
        tmp_path / "iu",
        {
            "ecgen-radiology/1.xml": report(
                "CXR1", "Heart &lt; 50% &amp; clear.", ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
            ),
            "ecgen-radiology/2.xml": report("CXR2", "", ("CXR2_IM-0652-1001",), ("Cardiomegaly/mild", "Opacity")),
            "ecgen-radiology/3.xml": report("CXR3", "XXXX seen.", ("CXR3_IM-9",), ("No Indexing",)),
            "ecgen-radiology/4.xml": report("CXR4", "", ("CXR4_IM-1",)),
            "ecgen-radiology/5.xml": "<broken",
            "ecgen-radiology/6.xml": '<!DOCTYPE a [<!ENTITY b "c">]><eCitation><uId id="CXR6"/>&b;</eCitation>',
            "NLMCXR_png/CXR1_1_IM-0001-3001.png": b"1",
            "NLMCXR_png/CXR1_1_IM-0001-4001.png": b"2",
            "NLMCXR_png/CXR2_IM-0652-1001.png": b"3",
            "NLMCXR_png/CXR99_IM-1-1.png": b"4",
        },
    )
    made = run("openi", root)
    assert list(made.rows) == ["CXR1", "CXR2", "CXR3"]
    row = made.rows["CXR1"]
    assert row["subject_id"] == "CXR1" and row["xray"].endswith("3001.png") and row["other_files"].endswith("4001.png")
    assert row["report_text"] == "COMPARISON: None.\nFINDINGS: Heart < 50% & clear."
    assert (row["label_normal"], made.rows["CXR2"]["label_normal"], made.rows["CXR3"]["label_normal"]) == ("1", "0", "")
    assert made.rows["CXR2"]["report_text"] == "" and made.rows["CXR2"]["mesh"] == "Cardiomegaly/mild;Opacity"
    assert made.rows["CXR3"]["xray"] == "" and "XXXX" in made.rows["CXR3"]["report_text"], (
        "tokens are the reader's to map"
    )
    assert "neither findings nor impression" in made.why(file="ecgen-radiology/4.xml")
    assert (
        made.why(file="ecgen-radiology/5.xml")
        == made.why(file="ecgen-radiology/6.xml")
        == "no report of Open-i (no uId)"
    )
    assert made.why(file="NLMCXR_png/CXR99_IM-1-1.png") != ""


def test_kaggle_form(tmp_path: Path) -> None:
    root = put(
        tmp_path / "kaggle",
        {
            "indiana_reports.csv": "uid,MeSH,Problems,image,indication,comparison,findings,impression\n"
            '1,normal,normal,"Xray Chest PA and Lateral",TB,None.,"Clear, lungs.",Normal.\n'
            "2,Cardiomegaly/borderline;Pulmonary Artery/enlarged,x,y,,,,\n"
            "2,normal,normal,again,,,,\n",
            "indiana_projections.csv": "uid,filename,projection\n1,1_IM-0001-4001.dcm.png,Lateral\n"
            "1,1_IM-0001-3001.dcm.png,Frontal\n2,2_gone.png,Frontal\n9,9.png,Frontal\n",
            "images/images_normalized/1_IM-0001-4001.dcm.png": b"1",
            "images/images_normalized/1_IM-0001-3001.dcm.png": b"2",
        },
    )
    made = run("iu-xray", root)
    assert list(made.rows) == ["CXR1"]
    row = made.rows["CXR1"]
    assert row["xray"].endswith("3001.dcm.png") and row["xray_lateral"].endswith("4001.dcm.png")
    assert row["report_text"].startswith("COMPARISON: None.\nINDICATION: TB\nFINDINGS: Clear, lungs.")
    assert made.why(source="projections.csv", row=4) == "no such image on disk"
    assert made.why(source="projections.csv", row=5) == "no report of this uid"
    assert made.why(source="reports.csv", row=3) == "nothing of the study is on disk"
    assert made.why(source="reports.csv", row=4) == "a second report CXR2"


def test_r2gen_form_keeps_its_split(tmp_path: Path) -> None:
    def entry(name: str, split: str, **more: object) -> dict[str, object]:
        return {
            "id": name,
            "report": "Clear.",
            "image_path": [f"{name}/0.png", f"{name}/1.png"],
            "split": split,
            **more,
        }

    annotation = {
        "train": [entry("CXR2384_IM-0942", "train"), entry("CXR2384_IM-0942", "train")],
        "val": [entry("CXR2926_IM-1328", "val")],
        "test": [entry("CXR1451_IM-0291", "test")],
    }
    images = {f"images/{name}/{n}.png": b"1" for name in ("CXR2384_IM-0942", "CXR2926_IM-1328") for n in (0, 1)}
    root = put(tmp_path / "r2gen", {"annotation.json": json.dumps(annotation), **images})
    made = run("openi", root)
    row = made.rows["CXR2384_IM-0942"]
    assert row["subject_id"] == "CXR2384" and row["split"] == "train" and row["xray"].endswith("0942/0.png")
    assert [made.rows[name]["split"] for name in made.rows] == ["train", "val", "test"]
    assert made.rows["CXR1451_IM-0291"]["xray"] == "", "its images are not there; its report is"
    assert [line["reason"] for line in made.lines if line["source"] == "annotation.json"].count(
        "a second report CXR2384_IM-0942"
    ) == 1


def test_a_folder_without_reports_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LayoutError, match="holds no report"):
        run("openi", put(tmp_path / "x", {"a.png": b"1"}))


def test_a_mask_under_the_name_of_a_picture_and_pictures_that_are_missing(tmp_path: Path) -> None:
    files = {f"xml/{n}.xml": report(f"CXR{n}", "Clear.", (f"CXR{n}_IM-1",)) for n in (1, 2, 3)}
    files |= {"a_mask/CXR1_IM-1.png": b"0", "png/CXR1_IM-1.png": b"1"}
    made = run("openi", put(tmp_path / "iu", files))
    assert made.rows["CXR1"]["xray"] == "png/CXR1_IM-1.png" and made.rows["CXR2"]["xray"] == ""
    with pytest.raises(LostError, match="xml: 2 of 3 files that it names for xray .2 x no such image on disk"):
        run("openi", tmp_path / "iu", max_lost=0.1)
    reports = put(tmp_path / "reports", {name: text for name, text in files.items() if name.endswith("xml")})
    assert len(run("openi", reports, max_lost=0.1).rows) == 3, "the reports alone are a collection, too"
