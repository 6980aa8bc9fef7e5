"""Limits from a file: what they change, and what a wrong one is told."""

import pytest

from medssml.checks.limits import Limits, read_limits
from medssml.config import ConfigError
from medssml.manifest.quarantine import Allowance


def test_the_defaults_and_what_a_file_and_the_command_line_change(tmp_path):
    assert read_limits(None) == Limits()
    path = tmp_path / "limits.yaml"
    path.write_text("ct_spacing_mm: [0.5, 3]\nquarantined_rows: 2\n")
    limits = read_limits(path, ["eeg_seconds=[10, 60]"])
    assert limits.quarantine == Allowance(0.01, 2, 0.2)
    assert limits == Limits(ct_spacing_mm=(0.5, 3.0), quarantined_rows=2, eeg_seconds=(10.0, 60.0))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("ct_spacing: [1, 2]", "did you mean 'ct_spacing_mm'"),
        ("quarantined_rows: many", "expected an integer"),
        ("ct_spacing_mm: [1, 2, 3]", "a list of 2"),
        ("ct_spacing_mm: [3, 1]", r"least, greatest"),
        ("file_seconds: 0", "no file could be read"),
        ("file_declared_gib: 8", "2 or less"),
        ("drift: -1", "0 or more"),
    ],
)
def test_a_wrong_limit_is_refused_with_the_way_out(tmp_path, text, says):
    path = tmp_path / "limits.yaml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError, match=says):
        read_limits(path)
