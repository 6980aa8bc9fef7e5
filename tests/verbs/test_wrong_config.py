"""A config that is not there, is no YAML or has an unknown key ends every verb and study with exit code 2, and leaves nothing."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest

from medssml import cli
from medssml.schema import hints_of

#: Arguments that name a file of settings. `limits` and `config` of `check` and others are read in the same way.
FILES = ("config", "finetune_config", "architecture", "limits")
WRONG = {
    "missing": None,
    "no YAML": "model: [1",
    "no mapping": "just text",
    "unknown key": "optimm: {lr: 1}\n",
    "binary": "\x00\x01",
}


def cases() -> Iterator[tuple[str, str]]:
    """(verb, argument) of every verb that reads a file of settings."""
    for verb in cli.VERBS:
        for name in inspect.signature(cli.function_of(verb)).parameters:
            if name in FILES:
                yield verb, name


def required(verb: str, place: Path) -> list[str]:
    """What the verb cannot do without: files that are not there, words that mean nothing."""
    function = cli.function_of(verb)
    given = ["--checkpoint", "none", "--task", "none"] if verb == "finetune" else []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty and name != "out":
            continue
        hint = hints_of(function).get(name, str)
        text = str(place / name) if Path in (hint, *typing.get_args(hint)) else "none"
        given += [text] if name in cli.VERBS[verb].positional else [f"--{name.replace('_', '-')}", text]
    return given


def test_the_verbs_are_found() -> None:
    found = set(cases())
    assert {
        ("pretrain", "config"),
        ("prepare", "config"),
        ("finetune", "config"),
        ("finetune", "architecture"),
    } <= found
    assert {("check", "limits")} <= found
    assert {(f"study {name}", flag) for name in ("cohort", "phantom") for flag in FILES[:2]} <= found


@pytest.mark.parametrize("fault", WRONG)
@pytest.mark.parametrize(("verb", "argument"), cases())
def test_a_wrong_config_exits_2_in_every_verb_and_study(
    verb: str, argument: str, fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    config = tmp_path / "mine.yaml"
    text = WRONG[fault]
    if text is not None:
        config.write_text(text)
    code = cli.main([*verb.split(), *required(verb, tmp_path), f"--{argument.replace('_', '-')}", str(config)])
    said = capsys.readouterr().err
    assert code == 2, said
    assert said.count("\n") == 1 and "mine.yaml" in said and ("fix:" in said or "did you mean" in said), said
    assert [path.name for path in tmp_path.iterdir()] == ([] if text is None else ["mine.yaml"])


@pytest.mark.parametrize("script", ["cohort_study", "phantom_study"])
def test_the_scripts_of_the_studies_are_the_verbs(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """They once took --config for a file of their own, and ignored it."""
    import runpy

    path = Path(__file__).parents[2] / "pipelines" / f"{script}.py"
    config = str(tmp_path / "none.yaml")
    monkeypatch.setattr(
        "sys.argv", [str(path), "--manifest", "m.csv", "--out", str(tmp_path / "out"), "--config", config]
    )
    if script == "phantom_study":
        monkeypatch.setattr("sys.argv", [str(path), "--out", str(tmp_path / "out"), "--config", config])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 2 and "none.yaml" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
