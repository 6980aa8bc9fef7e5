"""What others say: no control of the terminal, no second line, no address; libraries are heard and not seen."""

from __future__ import annotations

import logging
import os
import sys
import types
import warnings
from pathlib import Path

import pytest

from medssml.foreign_text import LogLine, collecting, logging_to, one_line, printable


def speak(tmp_path: Path, body: str) -> None:
    """Runs code as if a library below site-packages held it."""
    file = tmp_path / "site-packages" / "nibabel" / "loud.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    exec(compile(body, str(file), "exec"), {"logging": logging, "warnings": warnings})


LOUD = """
warnings.warn("affine of\\x1b[31m zeros")
warnings.warn("old name", DeprecationWarning)
logging.getLogger("pydicom").warning("at %s", "<_io.BytesIO object at 0x7f5c408a1800>")
logging.getLogger("pydicom").info("nothing")
try:
    1 / 0
except ZeroDivisionError as error:
    logging.getLogger("pydicom").exception(error)
"""


def test_controls_are_spelled_out_and_lines_stay() -> None:
    assert printable("a\x1b[2J\tb\nc\r\x9b\u202ed\udcff") == "a\\x1b[2J\tb\nc\\x0d\\x9b\\u202ed\\udcff"
    assert printable("Ärzte – µg") == "Ärzte – µg"


def test_one_line_has_no_address() -> None:
    assert one_line("cannot  identify\n<_io.BytesIO object at 0x7f5c408a1800>") == "cannot identify BytesIO"
    assert one_line("<function f at 0x7f5c408a1800>") == "<function f>"
    assert one_line("x" * 50, 10) == "x" * 10 + " ..."


def test_what_libraries_say_is_collected_and_not_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with collecting() as heard:
        with collecting() as inner:
            speak(tmp_path, LOUD)
            speak(tmp_path, LOUD)
        assert inner is heard
    assert heard == ["nibabel: affine of\\x1b[31m zeros", "pydicom: at BytesIO", "pydicom: division by zero"]
    assert capsys.readouterr() == ("", "")
    assert logging.getLogger("pydicom").handlers != heard and warnings.showwarning.__module__ == "warnings"


def test_lines_of_many_files_have_their_names(tmp_path: Path) -> None:
    with collecting(name_files=True) as heard:
        for file in ("a.dcm", "b.dcm"):
            with collecting(file):
                logging.getLogger("pydicom").warning("odd")
        logging.getLogger("pydicom").warning("odd")
    assert heard == ["a.dcm: pydicom: odd", "b.dcm: pydicom: odd", "pydicom: odd"]


def test_an_import_tells_what_libraries_say_for_the_file(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from medssml.cli import main
    from medssml.readers import dicom
    from tests.readers.test_read_ct import series

    (tmp_path / "in").mkdir()
    series(tmp_path / "in" / "s", change=lambda index: {"StudyInstanceUID": "1.2.3", "PatientID": "p"})
    real = dicom.read_dataset

    def loud(path: Path, *rest: object, **more: object) -> object:
        logging.getLogger("pydicom").warning("says of a tag")
        return real(path, *rest, **more)

    monkeypatch.setattr(dicom, "read_dataset", loud)
    assert main(["import", "dicom", str(tmp_path / "in"), "--out", str(tmp_path / "m.csv")]) == 0
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if "says of" in line]
    assert lines[0] == "said by a library: 000.dcm: pydicom: says of a tag" and len(lines) > 1


def test_the_log_of_a_run_has_what_libraries_say_and_the_console_has_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = logging.FileHandler(tmp_path / "log.txt", encoding="utf-8")
    handler.setFormatter(LogLine("%(levelname)s %(message)s"))
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)
    with logging_to(handler):
        speak(tmp_path, LOUD)
        speak(tmp_path, LOUD)
    handler.close()
    lines = (tmp_path / "log.txt").read_text().splitlines()
    assert lines[0] == "WARNING nibabel: affine of\\x1b[31m zeros" and len(lines) == 3
    assert capsys.readouterr() == ("", "")


def test_a_traceback_is_shown_only_where_it_is_asked_for() -> None:
    try:
        raise ValueError("a\nb")
    except ValueError:
        record = logging.LogRecord("torch.x", logging.ERROR, "", 0, "two\nlines", None, sys.exc_info())
    assert LogLine().format(record) == "torch: two lines"
    assert "Traceback" in LogLine(traceback=True).format(record)
    ours = logging.LogRecord("medssml.x", logging.INFO, "", 0, "two\nlines", None, None)
    assert LogLine().format(ours) == "two\nlines"


def _print_in_c(job: types.NoneType) -> int:
    return os.write(2, b"a decoder in C speaks")


def test_a_decoder_that_prints_has_no_console(capfd: pytest.CaptureFixture[str]) -> None:
    from medssml.checks.budget import Budget, run_each

    assert [result for _, result in run_each(_print_in_c, [None], workers=1, budget=Budget(30.0, 1 << 32))] == [21]
    assert capfd.readouterr() == ("", "")
