"""Every verb by itself: with --json one object on stdout that says what came of it, with --quiet nothing at all."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from medssml import cli

#: Verb -> its arguments, in an order in which each finds what it needs, and what its result holds at least.
CALLS: dict[str, tuple[str, set[str]]] = {
    "phantom": ("--out cohort --studies 32 --seed 3 --preset small --missing 0.2", {"manifest", "truth", "studies"}),
    "doctor": ("", {"findings"}),
    "check": ("cohort/manifest.csv --problems listed.csv --workers 0", {"rows", "accepted", "kinds", "problems"}),
    "import": ("csv cohort/manifest.csv --out imported.csv", {"manifest", "studies", "source_rows"}),
    "plan": ("cohort/manifest.csv --out plan.yaml --device cpu --workers 0", {"choices", "coverage", "measured"}),
    "prepare": (
        "--config smoke/pretrain --manifest cohort/manifest.csv --cache runs/cache --workers 0",
        {"files", "prepared", "quarantined", "problems"},
    ),
    "cache": ("ls --cache runs/cache", {"entries", "bytes", "groups"}),
    "pretrain": (
        "--config smoke/pretrain --manifest cohort/manifest.csv --out runs/pretrain --no-track "
        "--set trainer.max_steps=1",
        {"run", "status"},
    ),
    "finetune": (
        "--checkpoint runs/pretrain --config smoke/finetune --manifest cohort/manifest.csv --task malignant "
        "--out runs/tuned --no-track --set trainer.max_steps=1",
        {"run", "status"},
    ),
    "transfer": (
        "--teacher runs/tuned --student xray --manifest cohort/manifest.csv --task malignant --out runs/xray --seeds 1 "
        "--bootstrap 20 --set trainer.max_steps=1",
        {"run", "page", "status", "gate"},
    ),
    "predict": (
        "--checkpoint runs/tuned --manifest cohort/manifest.csv --cache runs/cache --out predictions.csv",
        {"out", "studies", "tasks", "rows"},
    ),
    "embed": (
        "--checkpoint runs/tuned --manifest cohort/manifest.csv --cache runs/cache --out embeddings.parquet",
        {"out", "studies", "dimensions"},
    ),
    "evaluate": (
        "--checkpoint runs/tuned --manifest cohort/manifest.csv --cache runs/cache --out runs/tuned --bootstrap 20 "
        "--task malignant --no-probes --split all",
        {"out", "tasks", "retrieval", "protocol"},
    ),
    "impact": (
        "--checkpoint runs/tuned --manifest cohort/manifest.csv --cache runs/cache --out runs/tuned --bootstrap 20 "
        "--task malignant --split all --no-sweep",
        {"out", "task", "modalities", "coalitions"},
    ),
    "stress": (
        "--run runs/tuned --manifest cohort/manifest.csv --cache runs/cache --out runs/tuned --bootstrap 20 "
        "--obstacles absent report_typos --severities 1 --split all",
        {"out", "tasks", "left_out", "protocol"},
    ),
    "suspects": (
        "--checkpoint runs/pretrain --manifest cohort/manifest.csv --cache runs/cache --task effusion --out suspects",
        {"out", "studies", "tasks"},
    ),
    "propagate": (
        "--checkpoint runs/pretrain --manifest cohort/manifest.csv --cache runs/cache --task effusion --out propagated",
        {"out", "studies", "tasks"},
    ),
    "ids": ("cohort/manifest.csv --out named.csv", {"written", "studies"}),
    # Of the folder above, the run in it is taken.
    "compare": ("runs/tuned runs --bootstrap 20 --out compare.html", {"page", "tasks"}),
    "report": ("runs/tuned", {"page", "shows"}),
}
#: A demo and a study are stories of their own, a comparison needs several runs, the pages of MLflow stay until they are closed,
#: and `select` wants studies without a label, which this cohort lacks (test_remedies_of_labels.py).
ELSEWHERE = {"demo", "study cohort", "study methods", "study obstacles", "study phantom", "compare", "select", "ui"}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


class Said(NamedTuple):
    code: int
    out: str
    err: str


def call(*argv: str) -> Said:
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main(argv)
    return Said(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, dict[str, Said]]]:
    """Flag -> verb -> what it said: the whole of `CALLS` with --json, then again with --quiet in the same place."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("verbs"))
        yield {
            flag: {verb: call(verb, *flags.split(), flag) for verb, (flags, _) in CALLS.items()}
            for flag in ("--json", "--quiet")
        }


def test_no_verb_is_left_out() -> None:
    assert set(CALLS) | ELSEWHERE == set(cli.VERBS)


@pytest.mark.parametrize("verb", CALLS)
def test_json_is_one_object_with_content_and_nothing_else(said: dict[str, dict[str, Said]], verb: str) -> None:
    code, out, err = said["--json"][verb]
    assert code == 0, err

    def refused(constant: str) -> Any:
        raise ValueError(f"{constant} is no JSON")

    found = json.loads(out, parse_constant=refused)
    assert found["verb"] == verb and found["exit_code"] == 0
    assert CALLS[verb][1] <= set(found), sorted(found)
    assert err.startswith("medssml ")


@pytest.mark.parametrize("verb", CALLS)
def test_quiet_says_nothing(said: dict[str, dict[str, Said]], verb: str) -> None:
    assert said["--quiet"][verb] == Said(0, "", "")


def test_a_training_tells_what_came_of_it(said: dict[str, dict[str, Said]]) -> None:
    found = json.loads(said["--json"]["pretrain"].out)
    assert found["status"] == "done" and found["steps"] == 1 and found["studies"]["train"] > 0
    assert Path(found["run"]).parts == ("runs", "pretrain") and found["quarantined"] == 0


def test_the_plan_that_was_written_runs_as_it_is(said: dict[str, dict[str, Said]], tmp_path: Path) -> None:
    given = ["--config", "plan.yaml", "--manifest", "cohort/manifest.csv", "--no-track", "--out", str(tmp_path / "run")]
    short = ["--set", "trainer.max_steps=1", "--set", "trainer.validate_every=0", "--set", "data.prepare_workers=0"]
    done = call("pretrain", *given, *short)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "model" / "model.safetensors").exists()


def test_a_list_of_problems_is_never_written_over_by_another_verb(said: dict[str, dict[str, Said]]) -> None:
    kept = Path("runs/tuned/problems.csv").read_bytes()
    broken = Path("cohort/manifest.csv").read_text().splitlines()
    column = broken[0].split(",").index("xray")
    rows = [line.split(",") for line in broken[1:]]
    victim = next(row for row in rows if row[column])
    victim[column] = "gone.png"
    Path("cohort/broken.csv").write_text("\n".join([broken[0], *(",".join(row) for row in rows)]) + "\n")
    shared = [
        "--checkpoint",
        "runs/tuned",
        "--manifest",
        "cohort/broken.csv",
        "--cache",
        "runs/cache",
        "--split",
        "all",
    ]
    for verb, out in (("evaluate", "runs/tuned"), ("predict", "apart/p.csv"), ("embed", "apart/e.parquet")):
        quick = ["--bootstrap", "20", "--no-probes", "--task", "malignant"] if verb == "evaluate" else []
        assert call(verb, *shared, "--out", out, *quick).code == 0
    assert Path("runs/tuned/problems.csv").read_bytes() == kept
    for listed in ("runs/tuned/problems_evaluate.csv", "apart/problems.csv", "apart/problems_embed.csv"):
        assert "gone.png" not in kept.decode() and len(Path(listed).read_text().splitlines()) == 2, listed
