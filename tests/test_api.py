"""Every verb is a function of the package, with the arguments of the command line and results in the place of exit codes."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import medssml
from medssml import api, cli
from medssml.results import Checked, Evaluation, Run


@pytest.mark.parametrize("verb", list(cli.VERBS))
def test_a_verb_has_the_arguments_of_its_command_line(verb: str) -> None:
    function = getattr(medssml, f"{verb}_" if verb == "import" else verb.replace(" ", "_"))
    of_cli = cli.function_of(verb)
    assert inspect.signature(function).parameters == inspect.signature(of_cli).parameters
    assert function.__doc__ == of_cli.__doc__ and function.__name__ in dir(medssml)
    parser = cli.parser_of(verb, of_cli)
    known = {action.dest for action in parser._actions} - {"help", "print_shtab", *cli._COMMON}
    assert known == set(inspect.signature(function).parameters) - set(cli._COMMON)


def test_nothing_heavy_is_imported_for_a_verb_that_is_only_looked_at() -> None:
    code = (
        "import medssml, sys; from medssml.phantom import Design; assert medssml.phantom.__name__ == 'phantom'; "
        "import medssml.phantom.presets; assert callable(medssml.phantom)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True)
    heavy = "{'torch', 'pandas', 'monai', 'mlflow', 'lightning'} & set(sys.modules)"
    code = (
        f"import medssml, sys; medssml.evaluate, medssml.pretrain, medssml.ui; found = {heavy}; assert not found, found"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def wrapped(value: Any, result: Any = lambda outcome: outcome) -> Any:
    def verb(*, checkpoint: str, out: Path | None = None, runs: list[str] | None = None, dry_run: bool = False) -> Any:
        return value if value is not None else (checkpoint, out, runs)

    return api._returning(verb, result)


def test_paths_may_be_texts_paths_or_results() -> None:
    run = Run("runs/a")
    outcome = wrapped(None)(checkpoint=run, out="x", runs=run)
    assert outcome.value == ("runs/a", Path("x"), ["runs/a"]) and outcome.code == 0
    assert wrapped(None)(checkpoint=Path("a"), runs=[run, "b"]).value == ("a", None, ["runs/a", "b"])
    assert run / "model" == Path("runs/a/model") and Path(run) == run.path


def test_a_signal_raises_and_too_many_lost_are_said() -> None:
    with pytest.raises(medssml.Stopped, match="fix: the same call goes on"):
        wrapped(75)(checkpoint="a")
    with pytest.raises(KeyboardInterrupt):
        wrapped(130)(checkpoint="a")
    assert wrapped(4, api._run)(checkpoint="a", out="x").too_many_lost
    assert not wrapped({"exit_code": 0}, api._run)(checkpoint="a", out="x").too_many_lost
    assert wrapped({"steps": 2}, api._run)(checkpoint="a", dry_run=True) == {"steps": 2}


def test_a_phantom_is_made_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = medssml.phantom(out="cohort", studies=4, preset="small", workers=1)
    assert manifest == Path("cohort/manifest.csv")
    checked = medssml.check(manifest, workers=1)
    assert isinstance(checked, Checked) and "action" in checked.problems
    table = pd.read_csv(manifest, dtype=str)
    table.assign(study_id=table["study_id"].iloc[0]).to_csv(manifest, index=False)
    refused = medssml.check(str(manifest), problems="list.csv", workers=1)
    assert refused.refused and not refused.ok and repr(refused).startswith("Checked(refused; ")
    assert "refused" in set(refused.problems["action"]) and refused.problems["row"].gt(0).any()
    with pytest.raises(ValueError, match="no column"):
        medssml.check(manifest, modalities="mri")


def test_results_are_read_from_their_files(tmp_path: Path) -> None:
    interval = {"estimate": 0.7, "ci_low": 0.6, "ci_high": 0.8}
    entry = {
        "as_observed": {"n": 9, "auroc": interval, "calibration": {}},
        "subsets": {"ct": {"n": 4, "auroc": interval}},
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"tasks": {"sick": entry}}))
    found = Evaluation(tmp_path)
    assert found.metrics["tasks"]["sick"]["as_observed"]["n"] == 9
    assert found.table.to_dict("records") == [
        {"task": "sick", "subset": "as observed", "n": 9, "auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.8},
        {"task": "sick", "subset": "ct", "n": 4, "auroc": 0.7, "auroc_low": 0.6, "auroc_high": 0.8},
    ]
    assert list(found.problems.columns)[:2] == ["row", "study_id"] and len(found.problems) == 0
    assert found.report is None and repr(found) == f"Evaluation({str(tmp_path)!r})"
    (tmp_path / "config.yaml").write_text("seed: 3\n")
    (tmp_path / "history.csv").write_text("step,loss\n1,0.5\n")
    run = Run(tmp_path)
    assert run.config == {"seed": 3} and run.history["loss"].tolist() == [0.5] and not run.done


def test_an_evaluation_in_the_folder_of_a_training_has_problems_of_its_own(tmp_path: Path) -> None:
    from medssml.manifest.problems import Problem, own_list, write_problems

    def problem(study: str) -> Problem:
        return Problem(2, study, "ct", "", "damaged", "cut short", "replace it")

    write_problems([problem("a")], tmp_path / "problems.csv", "pretrain")
    assert len(Evaluation(tmp_path).problems) == 0
    write_problems([problem("b")], own_list(tmp_path, "evaluate"), "evaluate")
    assert Evaluation(tmp_path).problems["study_id"].tolist() == ["b"]
    assert Run(tmp_path).problems["study_id"].tolist() == ["a"]
