"""Sentences: whole whatever the line ends say, so that no negation is parted from what it negates."""

from __future__ import annotations

import random

import pytest

from medssml.readers.sentences import sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The heart is normal. There is no\npneumothorax. Lungs are\nclear.",
         ["The heart is normal.", "There is no pneumothorax.", "Lungs are clear."]),
        ("There is no\n\npneumothorax.\n\nHeart is normal.", ["There is no pneumothorax.", "Heart is normal."]),
        ("1. no effusion\n2. no nodule\n   in the lungs\n3. clips", ["1. no effusion", "2. no nodule in the lungs", "3. clips"]),
        ("- No effusion\n- No nodule", ["- No effusion", "- No nodule"]),
        ("IMPRESSION:\n1. No effusion.\n2. Nodule of\n9 mm.", ["IMPRESSION: 1. No effusion.", "2. Nodule of 9 mm."]),
        ("There is no evidence of:\n- pneumothorax.\n- effusion.\nHeart is normal.",
         ["There is no evidence of: - pneumothorax. - effusion.", "Heart is normal."]),
        ("NEGATIVE FINDINGS:\n1. pneumothorax\n2. fracture", ["NEGATIVE FINDINGS: 1. pneumothorax 2. fracture"]),
        ("No evidence of\n1. pneumothorax\n2. fracture", ["No evidence of 1. pneumothorax 2. fracture"]),
        ("Not seen: Effusion. Fracture. Nodule.", ["Not seen: Effusion. Fracture. Nodule."]),
        ("No fracture of rib\n5. and of the spine. Heart normal.",
         ["No fracture of rib 5. and of the spine.", "Heart normal."]),
        ("Kein V.a. Pneumothorax. Kein sign. Erguss. Übrige Lunge frei.",
         ["Kein V.a. Pneumothorax.", "Kein sign. Erguss. Übrige Lunge frei."]),
        ("NO SIGNIF.\nEFFUSION. LUNGS ARE CLEAR.\nNO\nNODULE.", ["NO SIGNIF. EFFUSION.", "LUNGS ARE CLEAR.", "NO NODULE."]),
        ("Pneumothorax? No. Heart is normal.", ["Pneumothorax? No. Heart is normal."]),
        ("Pneumothorax. None seen. Bones are normal.", ["Pneumothorax. None seen.", "Bones are normal."]),
        ("LUNGS: clear\nPLEURA: no\neffusion\nIMPRESSION: normal", ["LUNGS: clear", "PLEURA: no effusion", "IMPRESSION: normal"]),
        ("no effusion.\nheart shows no\nclips.", ["no effusion.", "heart shows no clips."]),
        ("Sin evidencia de\nneumotórax. Corazón normal.", ["Sin evidencia de neumotórax.", "Corazón normal."]),
        ("Nodule of 9 mm. No effusion.", ["Nodule of 9 mm.", "No effusion."]),
        ("Pneumothorax:\nNo\nNodule:\nYes", ["Pneumothorax: No Nodule: Yes"]),
        ("1. Pneumothorax\n   - absent\n2. Nodule\n   - seen", ["1. Pneumothorax - absent", "2. Nodule - seen"]),
        ("Ruled out:\n- fracture\n- bleed", ["Ruled out: - fracture - bleed"]),
        ("", []),
    ],
)  # fmt: skip
def test_sentences(text: str, expected: list[str]) -> None:
    assert sentences(text) == expected


def test_no_word_is_lost_and_no_line_end_of_a_printer_makes_a_sentence() -> None:
    """Any width of the printer gives the sentences of the text on one line, or fewer."""
    text = (
        "The lungs are clear. There is no evidence of consolidation. No pleural effusion is identified. The heart is not "
        "enlarged. Without interval change of the left chest wall. There has been no fracture of the ribs."
    )
    whole = sentences(text)
    assert len(whole) == 6
    for width in range(8, 90):
        lines = [""]
        for word in text.split():
            if len(lines[-1]) + len(word) >= width:
                lines.append("")
            lines[-1] = f"{lines[-1]} {word}".strip()
        assert sentences("\n".join(lines)) == whole, width
        assert sentences("\n\n".join(lines)) == whole, width


def test_long_texts_take_linear_time() -> None:
    dice = random.Random(0)
    for piece in ("a", "No. ", "no\n", "A.\n", "1. a\n", "No: ", "\n\n", "x " * 50 + "\n"):
        assert isinstance(sentences(piece * 40_000), list)
    assert sentences(" ".join(dice.choices(("no", "nodule.", "Heart"), k=20_000)))
