"""Sections: by the structure of the report, so that what stands under a heading of the findings stays with them."""

from __future__ import annotations

import pytest

from medssml.readers.errors import Flag
from medssml.readers.headings import heading_of, section_named
from medssml.readers.sections import chosen_sections, split_sections


@pytest.mark.parametrize(
    ("text", "sections"),
    [
        ("FINDINGS:\nLUNGS: Nodule.\nHEART: Normal.\n\nIMPRESSION:\nCHEST: Same.",
         {"findings": "LUNGS: Nodule.\nHEART: Normal.", "impression": "CHEST: Same."}),
        ("FINDINGS: a b\nIMPRESSION AND RECOMMENDATIONS: c", {"findings": "a b", "impression": "c"}),
        ("FINDINGS: a b\nIMPRESSION(S): c", {"findings": "a b", "impression": "c"}),
        ("CT CHEST FINDINGS: a\nPRELIMINARY IMPRESSION: c", {"findings": "a", "impression": "c"}),
        ("COMPARISON: none\nCHEST, 2 VIEWS: nodule\nIMPRESSION: c",
         {"comparison": "none", "chest, 2 views": "nodule", "impression": "c"}),
        ("TECHNIQUE: CT\nCONTRAST: none\nFINDINGS: a", {"technique": "CT\nCONTRAST: none", "findings": "a"}),
        ("FINDINGS: Cavity. DIFFERENTIAL DIAGNOSIS: abscess. Heart normal.\nIMPRESSION: Cavity.",
         {"findings": "Cavity. DIFFERENTIAL DIAGNOSIS: abscess. Heart normal.", "impression": "Cavity."}),
        ("FINDINGS: A NODULE. ON THE PRIOR STUDY: NONE. HEART NORMAL.\nIMPRESSION: NODULE.",
         {"findings": "A NODULE. ON THE PRIOR STUDY: NONE. HEART NORMAL.", "impression": "NODULE."}),
        ("FINDINGS: It supports the clinical\nimpression: pneumonia.\nIMPRESSION: Opacity.",
         {"findings": "It supports the clinical\nimpression: pneumonia.", "impression": "Opacity."}),
        ("FINDINGS: IT SUPPORTS THE CLINICAL\nIMPRESSION: PNEUMONIA.\nIMPRESSION: OPACITY.",
         {"findings": "IT SUPPORTS THE CLINICAL\nIMPRESSION: PNEUMONIA.", "impression": "OPACITY."}),
        ("## Findings\nclear\n### Heart\nnormal\n## Impression\nnone",
         {"findings": "clear\n### Heart\nnormal", "impression": "none"}),
        ("**Findings:** clear\n**Heart:** normal\n\n**Impression**\nnone",
         {"findings": "clear\n**Heart:** normal", "impression": "none"}),
        ("FINDINGS\uff1aclear\nIMPRESSION\uff1anone", {"findings": "clear", "impression": "none"}),
        ("FINDINGS - clear\nImpression \u2013 none\nComparison \u2014 old",
         {"findings": "clear", "impression": "none", "comparison": "old"}),
        ("=== FINDINGS ===\nclear\n[IMPRESSION]\nnone", {"findings": "clear", "impression": "none"}),
        ("1. FINDINGS: clear\n2. IMPRESSION: none", {"findings": "clear", "impression": "none"}),
        ("FINDINGS The lungs are clear.\nIMPRESSION No nodule.",
         {"findings": "The lungs are clear.", "impression": "No nodule."}),
        ("findings: clear lungs\nimpression: none", {"findings": "clear lungs", "impression": "none"}),
        ("The findings are as follows: none", {}),
        ("\u2022 Findings: clear\n\u2022 Impression: none", {"findings": "clear", "impression": "none"}),
        ("F I N D I N G S: clear\nI M P R E S S I O N : none", {"findings": "clear", "impression": "none"}),
        ("FINDINGS (compared with 2019): clear\nIMPRESSION [final]: none", {"findings": "clear", "impression": "none"}),
        ("| FINDINGS | clear |\n| IMPRESSION | none |", {"findings": "clear", "impression": "none"}),
        ("FINDINGS:\nCOMPARISON STUDY SHOWED: none\nclear", {"findings": "COMPARISON STUDY SHOWED: none\nclear"}),
        ("Befund:\nLunge: frei\nBeurteilung: kein Erguss", {"findings": "Lunge: frei", "impression": "kein Erguss"}),
    ],
)  # fmt: skip
def test_sections_by_structure(text: str, sections: dict[str, str]) -> None:
    assert split_sections(text) == sections


WANTED = ("findings", "impression")


@pytest.mark.parametrize(
    ("text", "kept", "says"),
    [
        ("INDICATION: cough\nFINDINGS: clear\nIMPRESSION: none", "clear\nnone", []),
        ("FINDINGS: below.\nCOMPARISON: old.\nCHEST, 2 VIEWS: Nodule.\nIMPRESSION: x", "below.\nx\nCHEST, 2 VIEWS: Nodule.",
         ["in no section is kept: 'chest, 2 views' (7 letters)"]),
        ("COMPARISON: old.\n\nNodule of 9 mm.\n\nIMPRESSION: x", "x\nNodule of 9 mm.",
         ["has no section findings; has impression", "without a heading (15 letters)"]),
        ("Nodule of 9 mm.\nIMPRESSION: x", "x\nNodule of 9 mm.", ["has no section findings", "(15 letters)"]),
        ("Indikation: Husten.\nCT Thorax: Herd.\nBeurteilung: x", "x\nCT Thorax: Herd.", ["has no section findings"]),
        ("FINDINGS/IMPRESSION: Nodule.", "Nodule.", []),
        ("FINDINGS: a b", "a b", ["has no section impression; has findings"]),
        ("Nothing with a heading.", "Nothing with a heading.", ["has none of the sections findings, impression"]),
        ("FINDINGS: a b\nIMPRESSION: c\nDICTATED BY: somebody", "a b\nc", ["left out", "'dictated by' (8 letters)"]),
    ],
)  # fmt: skip
def test_what_is_chosen_and_what_is_said(text: str, kept: str, says: list[str]) -> None:
    chosen, notes = chosen_sections(text, WANTED)
    assert chosen == kept and all(isinstance(note, Flag) for note in notes)
    assert all(words in " | ".join(notes) for words in says) and bool(notes) == bool(says)


def test_the_impression_alone_stays_alone() -> None:
    text = "COMPARISON: old.\nCHEST, 2 VIEWS: Nodule.\nIMPRESSION: x"
    assert chosen_sections(text, ["impression"]) == ("x", [])


def test_headings_take_linear_time() -> None:
    for piece in ("A", "A ", "A: ", "FINDINGS", "**", "#", "- ", "A, ", ". A", "=FINDINGS", "(a)", "\n#", " and "):
        text = piece * 60_000
        assert isinstance(split_sections(text), dict) and isinstance(section_named(text[:500]), str)
        assert heading_of(text) is None or heading_of(text)
