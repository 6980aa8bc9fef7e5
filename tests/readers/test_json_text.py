"""JSON with halves of characters: what leaves can be written as UTF-8; everything else is as `json.loads` has it."""

import json
import random

import pytest

from medssml.readers import read_report
from medssml.readers.json_text import json_value
from medssml.transforms import ReportTransform


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'"a\ud83e"', "a\ufffd"),
        (r'"\udd20a"', "\ufffda"),
        (r'"\ud83e\udd20"', "\U0001f920"),  # both halves: a character
        (r'"\\ud83e"', r"\ud83e"),  # a backslash and letters
        (r'{"\uD800": ["\uDFFF", 1, null, {"b": "\u00e4"}]}', {"\ufffd": ["\ufffd", 1, None, {"b": "ä"}]}),
    ],
)
def test_halves(text, value):
    assert json_value(text) == json_value(text.encode()) == value


def test_sound_json_is_what_it_was():
    dice = random.Random(0)
    for _ in range(200):
        letters = [chr(n) for n in dice.sample(range(1, 0xD800), 5)] + ["\U0001f920", '"', "\\"]
        value = {"".join(dice.sample(letters, 3)): [dice.random(), {"x": "".join(dice.sample(letters, 4))}, None, True]}
        for ascii_only in (True, False):
            assert json_value(json.dumps(value, ensure_ascii=ascii_only)) == value


def test_a_report_that_was_cut_inside_a_character_is_read_and_prepared(tmp_path):
    report = {"resourceType": "DiagnosticReport", "status": "final", "conclusion": "Lungs are clear \ud83e"}
    path = tmp_path / "a.json"
    path.write_text(json.dumps(report))
    assert read_report(path).text.endswith("Lungs are clear \ufffd")
    assert ReportTransform(vocab_size=128, max_length=16).prepare(path)
