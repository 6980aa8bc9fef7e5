"""What the pages show works: Python snippets run, commands parse, links lead somewhere, every config is accepted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from medssml import cli
from medssml.shipped_configs import config_path, shipped_names

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
#: First words of commands that are not medssml's.
OTHER_COMMANDS = {"make", "git", "cd", "ls", "python", "pip", "sudo", "source", "export", "torchrun", "head", "cat"}


class Snippet(NamedTuple):
    """A fenced block. flags: words after the language; `skip` leaves a block out of the tests, for all to see."""

    page: Path
    line: int
    language: str
    flags: tuple[str, ...]
    text: str


def snippets(language: str) -> list[Snippet]:
    found = []
    for page in PAGES:
        text = page.read_text("utf-8")
        for match in re.finditer(r"^```(\w+)([^\n]*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            if match.group(1) == language:
                found.append(Snippet(page, line, language, tuple(match.group(2).split()), match.group(3)))
    return found


def commands() -> list[tuple[str, str]]:
    """(where, command line) of every line of every bash block, continued lines joined."""
    found = []
    for snippet in snippets("bash"):
        lines = snippet.text.replace("\\\n", " ").splitlines()
        where = f"{snippet.page.relative_to(ROOT)}:{snippet.line}"
        found += [(where, line.strip()) for line in lines if line.strip() and not line.startswith("#")]
    return found


@pytest.mark.parametrize(("where", "line"), commands(), ids=lambda value: value[:60])
def test_every_command_in_the_docs_parses(where: str, line: str) -> None:
    words = shlex.split(line.split(" | ")[0], comments=True)
    while words and re.match(r"^[A-Z_]+=", words[0]):
        words = words[1:]
    if words[0] != "medssml":
        assert words[0] in OTHER_COMMANDS, f"{where}: {line}"
        if words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), f"{where}: no script {words[1]}"
        return
    _, verb, *flags = words
    assert verb in cli.VERBS, f"{where}: {line}"
    values = cli.parse(verb, cli.function_of(verb), flags)
    for flag, kind in (("config", "finetune" if verb == "finetune" else "pretrain"), ("architecture", "pretrain")):
        named = (values or {}).get(flag)
        if named is not None and Path(named).suffix != ".yaml" or str(named).startswith("configs/"):
            assert config_path(named, kind).is_file(), f"{where}: no config {named}"


def test_every_example_of_the_overview_names_files_that_exist() -> None:
    for verb in cli.VERBS.values():
        for word in re.findall(r"--config (\S+)", verb.example):
            assert word in shipped_names("pretrain"), word


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory, cohort: Path) -> Path:
    """A folder as the pages presume it: `cohort/` and, in `runs/`, models of all four modalities, untrained."""
    place = tmp_path_factory.mktemp("docs")
    shutil.copytree(cohort.parent, place / "cohort")
    shutil.copytree(ROOT / "configs", place / "configs")
    return place


@pytest.fixture(scope="module")
def with_runs(workplace: Path) -> Path:
    from medssml.encoders import EEGTransformer, TextEncoder, ViT
    from medssml.fusion import MaskedAttention
    from medssml.manifest.manifest import Manifest
    from medssml.model import MultimodalModel, Task
    from medssml.spaces import SharedSpace
    from medssml.transforms import CTTransform, EEGTransform, ReportTransform, XrayTransform

    manifest = Manifest.read(workplace / "cohort" / "manifest.csv")
    report = ReportTransform(vocab_size=256, max_length=64)
    texts = [p.read_text("utf-8") for p in sorted((workplace / "cohort").rglob("*.txt"))]
    report.vocabulary.fit(texts or ["No acute findings."])
    transforms = {
        "ct": CTTransform(spacing=(8, 8, 8), size=(32, 32, 32)),
        "xray": XrayTransform(size=32),
        "eeg": EEGTransform(window_s=2.0, eval_window_s=4.0),
        "report": report,
    }
    encoders = {
        "ct": ViT(input_size=(32, 32, 32), patch_size=16, dim=16, depth=1, heads=2),
        "xray": ViT(input_size=(32, 32), patch_size=16, dim=16, depth=1, heads=2),
        "eeg": EEGTransformer(dim=16, depth=1, heads=2, patch_samples=100, sfreq=100.0),
        "report": TextEncoder(vocab_size=256, dim=16, depth=1, heads=2, max_length=64),
    }
    tasks = {name: Task("binary") for name in manifest.tasks}
    model = MultimodalModel(encoders, MaskedAttention(tuple(encoders), dim=16, depth=1, heads=2), tasks)
    for run in ("demo", "malignant", "pretrain"):
        if run == "pretrain":  # a pretrained run keeps the space of its contrast
            model.keep({"space": SharedSpace(16, 8, tuple(encoders), batch_norm=False)})
        model.save(workplace / "runs" / run / "model", transforms=transforms)
    return workplace


def pages_with_python() -> list[Any]:
    found: dict[Path, list[Snippet]] = {}
    for snippet in snippets("python"):
        if "skip" not in snippet.flags:
            found.setdefault(snippet.page, []).append(snippet)
    return [pytest.param(blocks, id=str(page.relative_to(ROOT))) for page, blocks in found.items()]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", pages_with_python())
def test_python_snippets_run_page_by_page(
    blocks: list[Snippet], with_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(with_runs)
    monkeypatch.setattr("sys.path", [str(with_runs), *os.sys.path])  # type: ignore[attr-defined]
    names: dict[str, Any] = {"__name__": "snippet"}
    for block in blocks:
        for flag in block.flags:
            # ```python file=NAME: the reader saves the block under this name.
            if flag.startswith("file="):
                (with_runs / flag.removeprefix("file=")).write_text(block.text, "utf-8")
        padded = "\n" * block.line + block.text
        exec(compile(padded, str(block.page), "exec"), names)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_that_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text("utf-8")):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_index_names_every_verb_and_every_tutorial() -> None:
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    assert [verb for verb in cli.VERBS if f"`{verb}`" not in index] == []
    assert [t.name for t in (ROOT / "docs" / "tutorials").glob("*.md") if f"tutorials/{t.name}" not in index] == []


def test_the_tutorial_snippets_that_are_left_out_are_few() -> None:
    skipped = [f"{s.page.name}:{s.line}" for s in snippets("python") if "skip" in s.flags]
    assert len(skipped) <= 2, skipped


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT / "configs"))
)
def test_every_shipped_config_is_accepted_and_builds(path: Path) -> None:
    from medssml.config import build, load_config
    from medssml.model import MultimodalModel
    from medssml.objectives import Objective
    from medssml.runs.training_config import FinetuneConfig, PretrainConfig
    from medssml.transforms.road import Road, built_road

    if "finetune" in str(path.relative_to(ROOT / "configs")):
        load_config(path, FinetuneConfig)
        return
    config = load_config(path, PretrainConfig)
    model = build(config["model"], MultimodalModel)
    assert all(isinstance(built_road(name, part), Road) for name, part in config["transforms"].items())
    assert set(config["transforms"]) == set(model.modalities)
    for node in config["objectives"]:
        assert isinstance(build(node, Objective, model=model), Objective)
