"""What the command line says of a config that nobody can have meant, before anything is read or trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from medssml import cli

SMOKE = Path(__file__).parents[2] / "configs" / "smoke"


@pytest.mark.parametrize(
    ("verb", "right", "wrong", "nearest"),
    [
        ("pretrain", "decoder_depth: 1", "decoder_dept: 1", "decoder_depth"),
        ("pretrain", "trainer: {max_epochs", "trainer: {max_epoch", "max_epochs"),
        ("pretrain", "class_path: ViT", "class_path: VitT", "ViT"),
        ("pretrain", "objectives:", "objective:", "objectives"),
        ("finetune", "optim: {lr:", "optim: {learn_rate: 1, lr:", None),
        ("finetune", "data: {batch_size:", "data: {batchsize:", "batch_size"),
    ],
)
def test_a_wrong_key_exits_2_with_the_key_its_line_and_the_nearest_name(
    verb: str,
    right: str,
    wrong: str,
    nearest: str | None,
    cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = (SMOKE / f"{verb}.yaml").read_text()
    assert right in text
    config = tmp_path / "mine.yaml"
    config.write_text(text.replace(right, wrong, 1))
    line = next(i for i, said in enumerate(config.read_text().splitlines(), start=1) if wrong in said)
    start = (
        []
        if verb == "pretrain"
        else ["--checkpoint", "none", "--task", "malignant", "--architecture", str(SMOKE / "pretrain.yaml")]
    )
    code = cli.main([verb, "--config", str(config), "--manifest", str(cohort), "--out", str(tmp_path / "run"), *start])
    said = capsys.readouterr().err
    assert code == 2
    key = wrong.split("{")[-1].split(":")[0] if "class_path" not in wrong else "VitT"
    assert f"{config}:{line}:" in said and f"'{key}'" in said and said.count("\n") == 1, said
    fix = "known here: " if nearest is None else f"did you mean '{nearest}'"
    assert fix in said, said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "flag", "right"),
    [
        (["check", "none.csv", "--problems", "list.pdf"], "--problems", ".csv"),
        (["check", "none.csv", "--report", "page.pdf"], "--report", ".html"),
        (
            ["prepare", "--manifest", "none.csv", "--config", "small", "--shards", "s", "--problems", "list.xlsx"],
            "--problems",
            ".csv",
        ),
        (["compare", "none", "nothing", "--out", "page.pdf"], "--out", ".html"),
        (["ids", "none.csv", "--out", "codes.parquet"], "--out", ".csv"),
        (["plan", "none.csv", "--out", "plan.json"], "--out", ".yaml"),
        (["predict", "--checkpoint", "none", "--manifest", "none.csv", "--out", "p.parquet"], "--out", ".csv"),
        (["embed", "--checkpoint", "none", "--manifest", "none.csv", "--out", "e.csv"], "--out", ".parquet"),
        (["report", "none", "--out", "page.md"], "--out", ".html"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_file_that_would_not_be_what_its_name_says_is_refused_before_anything_is_read(
    argv: list[str],
    flag: str,
    right: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(argv) == 2
    said = capsys.readouterr().err
    assert f"{flag} {argv[-1]}: what is written is" in said and f"ends in {right}" in said, said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("flag", [["--data-root", "."], ["--allow-outside"]], ids=str)
@pytest.mark.parametrize("verb", ["pretrain", "finetune"])
def test_what_is_said_of_files_is_refused_with_shards(
    verb: str, flag: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = ["--checkpoint", "none", "--task", "malignant", "--architecture", "smoke/pretrain"]
    argv = [verb, "--config", f"smoke/{verb}", "--shards", "none", "--out", str(tmp_path / "run"), *flag]
    assert cli.main([*argv, *(start if verb == "finetune" else [])]) == 2
    assert f"{flag[0]} with --shards, which hold their files themselves; fix: leave it out" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argv", "flag"),
    [
        (["check", "TABLE", "--problems", "TABLE"], "--problems"),
        (["ids", "TABLE", "--out", "TABLE"], "--out"),
        (["ids", "TABLE", "--results", "OTHER", "--out", "OTHER"], "--out"),
        (["prepare", "--manifest", "TABLE", "--config", "small", "--problems", "TABLE"], "--problems"),
        (["predict", "--checkpoint", "none", "--manifest", "TABLE", "--out", "LINK"], "--out"),
        (
            ["propagate", "--checkpoint", "none", "--manifest", "TABLE", "--out", "found", "--table", "LINK"],
            "--table",
        ),
        (
            ["suspects", "--checkpoint", "none", "--manifest", "TABLE", "--out", "found", "--weights", "TABLE"],
            "--weights",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_a_file_that_is_read_is_never_written_over(
    argv: list[str], flag: str, cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody's study table is not to be lost by a slip, also under another name."""
    names = {name: tmp_path / f"{name.lower()}.csv" for name in ("TABLE", "OTHER", "LINK")}
    names["TABLE"].write_bytes(cohort.read_bytes())
    names["OTHER"].write_bytes(cohort.read_bytes())
    names["LINK"].symlink_to(names["TABLE"])
    assert cli.main([str(names.get(word, word)) for word in argv]) == 2
    said = capsys.readouterr().err
    assert f"{flag} {tmp_path}" in said and "would be lost; fix: another name" in said
    assert names["TABLE"].read_bytes() == names["OTHER"].read_bytes() == cohort.read_bytes()
