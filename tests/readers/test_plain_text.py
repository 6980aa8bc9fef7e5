"""Plain text: what cannot be seen is taken out and said, written-out line ends are line ends, rules are no removed words."""

from __future__ import annotations

import pytest

from medssml.readers import parse_report
from medssml.readers.identifiers import suspicious_spans


@pytest.mark.parametrize(
    ("text", "plain", "says"),
    [
        ("\x1b[31mNo\x1b[0m nodule.\x1b]0;title\x07", "No nodule.", "3 terminal escapes"),
        ("\x1b(BNo\x1bnodule", "Nonodule", "2 terminal escapes"),
        ("pneumo\u200bthorax\ufeff", "pneumothorax", "2 zero-width characters"),
        ("no \u202enodule\u2069", "no nodule", "2 right-to-left controls"),
        ("a\x07b", "ab", "1 control characters"),
        ("N\x08NO\x08O nodule", "NO nodule", ""),
        ("no\x0bnodule\x85x\u2028y\x1dz", "no\nnodule\nx\ny\nz", ""),
        ("soft\u00adware", "software", ""),
        (
            "FINDINGS: Clear.\\nHeart normal.\\r\\nIMPRESSION: x",
            "FINDINGS: Clear.\nHeart normal.\nIMPRESSION: x",
            "2 line ends",
        ),
        ("Clear.<br>Heart<br/>normal.&#10;x_x000D_\ny", "Clear.\nHeart\nnormal.\nx\n\ny", "4 line ends"),
        ("no\\tnodule", "no\\tnodule", ""),
        ("no\\t nodule\\n", "no nodule", "1 line ends"),
        (
            "saved in C:\\new\\temp\\notes.txt and \\\\srv\\new",
            "saved in C:\\new\\temp\\notes.txt and \\\\srv\\new",
            "",
        ),
        ("FINDINGS\n__________\nClear\n----------\nx", "FINDINGS\n\nClear\n\nx", "1 lines of underscores"),
        ("____FINDINGS____\nClear", "FINDINGS\nClear", "1 lines of underscores"),
        ("IMPRESSION: __________\nNone", "IMPRESSION:\nNone", "1 lines of underscores"),
        ("Seen by ___ on ________.\n___\nx", "Seen by [DEID] on [DEID].\n[DEID]\nx", ""),
    ],
)
def test_what_a_text_may_carry(text: str, plain: str, says: str) -> None:
    report = parse_report(text)
    assert report.text == plain
    assert (says in " ".join(report.notes)) if says else report.notes == ()


@pytest.mark.parametrize(
    "piece",
    ["a", "1", "a-", "a.b", "MRN-", "[**", "\\n", "\x1b]", "C:\\", "_ ", "a\x08", "X", "tel: ", "&#", "\u200b", "1."],
)
def test_a_word_of_a_million_letters_takes_linear_time(piece: str) -> None:
    report = parse_report("Lungs are clear. " + piece * (1_000_000 // len(piece)))
    assert suspicious_spans(report.text) is not None
