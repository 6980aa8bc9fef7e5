"""The command line: quick, strict, and polite about mistakes."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import pytest

import medssml
from medssml import cli
from medssml.config import ConfigError
from medssml.overview import Verb

HEAVY = (
    "torch",
    "monai",
    "lightning",
    "mne",
    "mlflow",
    "pandas",
    "numpy",
    "scipy",
    "sklearn",
    "matplotlib",
    "transformers",
)
CLEAN = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def example(
    study: Path,
    *,
    out: Path,
    task: list[str] | None = None,
    rate: float = 0.5,
    freeze: int | str = "none",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    overrides: tuple[str, ...] = (),
    dry_run: bool = False,
    shuffle: bool = True,
) -> dict[str, Any]:
    """What a verb looks like.

    Args:
        study: a positional argument.
        rate: 30 % of them.
    """
    return {"study": study, "out": out, "task": task, "rate": rate, "overrides": list(overrides), "dry_run": dry_run}


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts a function in the place of the verb `report`."""

    def replace(function: Callable[..., Any]) -> None:
        module = ModuleType("medssml.verbs.report")
        module.report = function  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "medssml.verbs.report", module)
        monkeypatch.setitem(cli.VERBS, "report", Verb("a test", "report here --out there", ("study",)))

    return replace


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = cli.main(argv)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_help_answers_within_a_second() -> None:
    command = [sys.executable, "-m", "medssml", "--help"]
    subprocess.run(command, env=CLEAN, check=True, capture_output=True)
    times = []
    for _ in range(3):
        started = time.perf_counter()
        out = subprocess.run(command, env=CLEAN, check=True, capture_output=True, text=True).stdout
        times.append(time.perf_counter() - started)
    assert min(times) < 1.0, times
    assert all(f"  {name} " in out for name in cli.VERBS)
    assert len(out.splitlines()) <= 40


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    program = (
        "import sys; from medssml import cli\n"
        "for name in cli.VERBS:\n"
        "    cli.parser_of(name, cli.function_of(name)).format_help()\n"
        f"    print(name, [m for m in {HEAVY!r} if m in sys.modules])\n"
    )
    out = subprocess.run([sys.executable, "-c", program], env=CLEAN, check=True, capture_output=True, text=True).stdout
    assert out, "no verb was found"
    assert [line for line in out.splitlines() if not line.endswith("[]")] == []


@pytest.mark.parametrize("name", list(cli.VERBS))
def test_a_verb_is_one_documented_function_with_simple_arguments(name: str) -> None:
    function = cli.function_of(name)
    parser = cli.parser_of(name, function)
    helps = parser.format_help()
    assert f"Example: medssml {cli.VERBS[name].example}" in helps
    flags = {flag for action in parser._actions for flag in action.option_strings}
    for word in cli.VERBS[name].example.split():
        assert not word.startswith("--") or word in flags, f"the example of {name} uses {word}"
    missing = [a.dest for a in parser._actions if not a.help and a.option_strings]
    assert missing == [], f"the docstring of {name} does not explain {missing}"
    assert len(helps.splitlines()) <= 40, f"the help of {name} fills more than a screen"
    assert all(p.kind is not p.VAR_KEYWORD for p in inspect.signature(function).parameters.values())


def test_text_becomes_what_the_signature_says() -> None:
    argv = (
        "a.nii",
        "--out",
        "007",
        "--task",
        "x,y",
        "--task",
        "z",
        "--rate",
        "1e-1",
        "--set",
        "a=[1,2]",
        "--set",
        "b=c",
    )
    cli.VERBS["example"] = Verb("", "", ("study",))
    try:
        got = cli.parse("example", example, [*argv, "--freeze", "3", "--dry-run", "--no-shuffle", "--json"])
    finally:
        del cli.VERBS["example"]
    assert got is not None
    assert got["study"] == Path("a.nii") and got["out"] == Path("007")
    assert got["task"] == ["x", "y", "z"] and got["rate"] == 0.1 and got["freeze"] == 3
    assert got["overrides"] == ["a=[1,2]", "b=c"]
    assert got["dry_run"] is True and got["shuffle"] is False and got["json"] is True


def test_a_path_is_one_item_whatever_commas_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    odd = tmp_path / "lr=0.1,bs=8"
    odd.mkdir()
    impact = cli.function_of("impact")
    for given in (str(odd), "lr=0.1,bs=8"):
        monkeypatch.chdir(tmp_path)
        got = cli.parse("impact", impact, ["--checkpoint", given, "--checkpoint", "a,b", "--checkpoint", "x" * 5000])
        assert got is not None and got["checkpoint"] == [given, "a", "b", "x" * 5000]


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("chek", "unknown verb 'chek'; did you mean 'check'?"),
        ("report", "missing study, out; fix: for example medssml report here --out there"),
        ("report a", "missing out"),
        ("report a b --out c", "unexpected 'b'"),
        ("report a --out c --mainfest d", "unknown flag '--mainfest'"),
        ("report a --out c --dryrun", "did you mean '--dry-run'?"),
        ("report a --out c --dry", "unknown flag '--dry'"),
        ("report a --out c --rate lots", "--rate: expected a number, received 'lots'"),
        ("report a --out c --device gpu", "one of 'auto', 'cpu', 'cuda', received 'gpu'"),
        ("report a --out", "--out: expected one argument"),
        ("--json report", "the first word must be a verb"),
    ],
)
def test_a_wrong_command_line_exits_2_with_one_line(verb: Any, capsys: Any, argv: str, words: str) -> None:
    verb(example)
    code, out, err = run(capsys, *argv.split())
    assert code == 2 and out == ""
    assert err.startswith("error: medssml") and err.count("\n") == 1 and words in err, err


class _Refused(ValueError):
    exit_code = 3


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigError("x.yaml:3: unknown key 'a'\nin B"), 2, "x.yaml:3: unknown key 'a' in B"),
        (_Refused("row 4: empty"), 3, "row 4: empty"),
        (KeyError("no modality 'mri'"), 2, "error: no modality 'mri'"),
        (FileNotFoundError(2, "No such file", "a/b"), 2, "a/b: No such file"),
        (OSError(28, "No space left on device", "a/b"), 75, "no space left for a/b"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (RuntimeError("inner"), 1, "a fault in medssml"),
        (ModuleNotFoundError("No module named 'gdcm'", name="gdcm"), 2, "medssml doctor"),
    ],
)
def test_an_error_of_a_verb_is_one_line_and_an_exit_code(
    verb: Any, capsys: Any, error: BaseException, code: int, words: str
) -> None:
    def report(study: Path) -> None:
        """Fails."""
        raise error

    verb(report)
    got, _, err = run(capsys, "report", "a")
    assert got == code
    assert words in err and "Traceback" not in err and err.count("\n") == 1
    if code != 130:
        assert "Traceback" in run(capsys, "report", "a", "--verbose")[2]


def test_errors_that_a_user_may_meet_carry_their_exit_code() -> None:
    from medssml.checkpoint import CheckpointError
    from medssml.manifest.table_text import ManifestError
    from medssml.readers.errors import ReadError

    codes = {ConfigError: 2, ManifestError: 3, ReadError: 3, CheckpointError: 5}
    assert {kind: kind.exit_code for kind in codes} == codes  # type: ignore[attr-defined]


def test_results_and_exit_codes_of_verbs(verb: Any, capsys: Any) -> None:
    verb(example)
    code, out, _ = run(capsys, "report", "a", "--out", "b", "--json")
    assert code == 0
    assert json.loads(out)["study"] == "a"

    def report(study: Path) -> int:
        """Refuses."""
        return 4

    verb(report)
    assert run(capsys, "report", "a")[0] == 4


def test_json_leaves_stdout_to_the_result(verb: Any, capsys: Any) -> None:
    from medssml.runs import console

    def report(study: Path) -> Path:
        """Talks."""
        console.say("working")
        console.table([("a", 1.0)], ("name", "value"))
        return study

    verb(report)
    code, out, err = run(capsys, "report", "x", "--json")
    assert (code, json.loads(out)) == (0, {"verb": "report", "exit_code": 0, "written": "x"}) and "working" in err
    code, out, err = run(capsys, "report", "x")
    assert "working" in out and "written: x" in out
    code, out, err = run(capsys, "report", "x", "--quiet")
    assert (out, err) == ("", "")


def test_an_error_is_json_too_where_json_is_asked_for(verb: Any, capsys: Any) -> None:
    def report(study: Path) -> None:
        """Fails."""
        raise _Refused("row 4: empty")

    verb(report)
    code, out, err = run(capsys, "report", "a", "--json")
    assert json.loads(out) == {"verb": "report", "exit_code": 3, "error": "row 4: empty"} and code == 3
    assert err.endswith("error: row 4: empty\n")
    assert run(capsys, "report", "a")[1] == f"medssml {medssml.__version__} report\n"


def test_the_first_word_is_out_before_anything_heavy_is_imported() -> None:
    program = (
        "import sys; from medssml import cli; from medssml.runs import console\n"
        f"heavy = lambda: [m for m in {HEAVY!r} if m in sys.modules]\n"
        "for name in cli.VERBS:\n"
        "    console.say = lambda text: print(text, heavy())\n"
        "    cli._call(name, [], lambda: None, {}, verbose=False, quiet=False, json=False, piped=False)\n"
    )
    out = subprocess.run([sys.executable, "-c", program], env=CLEAN, check=True, capture_output=True, text=True).stdout
    assert out.splitlines() == [f"medssml {medssml.__version__} {name} []" for name in cli.VERBS]


def test_import_help_lists_every_layout_and_with_a_name_its_flags(capsys: Any) -> None:
    from medssml.importers import layouts

    code, out, _ = run(capsys, "import", "--help")
    assert code == 0 and len(out.splitlines()) <= 40
    for name, layout in layouts().items():
        assert f"  {name} " in out and f"{layout.title}: {layout.expects}\n" in out
        for known in (name, *layout.aliases):
            assert run(capsys, "import", known, "--help")[1].startswith(f"{layout.title}\nexpects: {layout.expects}\n")
    assert "--val-fraction" in run(capsys, "import", "mimic-cxr", "--help")[1]
    code, _, err = run(capsys, "import", "mimic-cxt", "--help")
    assert code == 2 and "did you mean 'mimic-cxr'?" in err


def test_version_and_no_verb(capsys: Any) -> None:
    assert run(capsys, "--version")[:2] == (0, f"medssml {medssml.__version__}\n")
    code, out, _ = run(capsys)
    assert code == 2 and "verbs:" in out
