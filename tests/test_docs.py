"""What the pages show works: Python and YAML blocks run, commands parse, links lead somewhere, every config is accepted.

Fenced blocks are code; output, formulas and excerpts are indented, or fenced as `text` or `csv`.
"""

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


#: Pages whose blocks run without anything that a test has made: tests/test_docs_alone.py.
ALONE = (
    "comparing_runs.md",
    "laboratory_values.md",
    "tutorials/analyst.md",
    "tutorials/hospital.md",
    "tutorials/researcher.md",
)
FENCE = re.compile(
    r"^(?:<!-- not run: (?P<why>[^\n]+?) -->\n)?```(?P<language>\w*)(?P<options>[^\n]*)\n(?P<text>.*?)^```",
    re.DOTALL | re.MULTILINE,
)


class Snippet(NamedTuple):
    """A fenced block. why: the reason for which it is not run, from the comment before it. title: the file it is saved as."""

    page: Path
    line: int
    language: str
    why: str | None
    title: str | None
    text: str


def snippets(*languages: str, page: Path | None = None) -> list[Snippet]:
    """The blocks of some languages, of one page or of all, in their order."""
    found = []
    for path in PAGES if page is None else [page]:
        text = path.read_text("utf-8")
        for match in FENCE.finditer(text):
            line = text.count("\n", 0, match.start("language")) + 1
            title = re.search(r'title="([^"]+)"', match["options"])
            if not languages or match["language"] in languages:
                name = title.group(1) if title else None
                found.append(Snippet(path, line, match["language"], match["why"], name, match["text"]))
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
    if words[1:] == ["--help"]:
        return
    verb, flags = cli.named(words[1:])
    assert verb in cli.VERBS, f"{where}: {line}"
    values = cli.parse(verb, cli.function_of(verb), flags)
    for flag, kind in (
        ("config", "finetune" if verb in ("finetune", "transfer") else "pretrain"),
        ("architecture", "pretrain"),
    ):
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
        if snippet.page.relative_to(ROOT / "docs" if "docs" in snippet.page.parts else ROOT).as_posix() in ALONE:
            continue
        if snippet.why is None:
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
        if block.title is not None:  # the reader saves the block under this name
            (with_runs / block.title).write_text(block.text, "utf-8")
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


def test_the_table_of_methods_names_every_method_and_tests_that_exist() -> None:
    from medssml import fusion, objectives

    text = (ROOT / "docs" / "methods" / "index.md").read_text("utf-8")
    methods = [
        name
        for package, base in ((objectives, objectives.Objective), (fusion, fusion.Fusion))
        for name, kind in vars(package).items()
        if name in package.__all__ and isinstance(kind, type) and issubclass(kind, base) and kind is not base
    ]
    assert [name for name in methods if f"`{name}`" not in text] == [], "a row in docs/methods/index.md"
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert [row for row in rows if not re.search(r"`\w+/test_\w+\.py`", row)] == []
    named = re.findall(r"`(\w+/test_\w+\.py)`", text)
    assert [path for path in named if not (ROOT / "tests" / path).exists()] == []


def test_each_row_of_what_a_newcomer_finds_has_its_evidence() -> None:
    text = (ROOT / "docs" / "first_minutes.md").read_text("utf-8")
    rows = {int(m[1]): m[2] for m in re.finditer(r"^\| (\d+) \| .* \| ([^|]+) \|$", text, re.MULTILINE)}
    assert sorted(rows) == list(range(1, 30))
    assert [row for row, evidence in rows.items() if not re.search(r"\]\(|`|any training", evidence)] == []
    for command in re.findall(r"`medssml ([^\s`]+)([^`]*)`", text):
        verb, flags = command[0], shlex.split(command[1])
        assert verb == "--help" or verb in cli.VERBS, verb
        known = cli.parser_of(verb, cli.function_of(verb)).format_help() if verb in cli.VERBS else ""
        assert [flag for flag in flags if flag.startswith("--") and flag not in known] == [], command


def test_every_fenced_block_runs_or_says_why_not() -> None:
    run = {"python", "bash", "yaml"}
    shown = {"text", "csv", "mermaid"}
    unknown = [f"{s.page.name}:{s.line}: {s.language!r}" for s in snippets() if s.language not in run | shown]
    assert unknown == []
    left_out = [f"{s.page.name}:{s.line}" for s in snippets("python", "yaml") if s.why is not None]
    assert len(left_out) <= 3, left_out


@pytest.mark.parametrize(
    "block", [s for s in snippets("yaml") if s.why is None], ids=lambda s: f"{s.page.relative_to(ROOT)}:{s.line}"
)
def test_a_yaml_block_is_accepted_as_a_part_of_a_config(block: Snippet, tmp_path: Path) -> None:
    from medssml.config import load_config
    from medssml.runs.training_config import PretrainConfig

    shutil.copy(ROOT / "configs" / "smoke" / "pretrain.yaml", tmp_path / "pretrain.yaml")
    (tmp_path / "block.yaml").write_text(f"base: pretrain.yaml\n{block.text}", "utf-8")
    load_config(tmp_path / "block.yaml", PretrainConfig)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "configs").rglob("*.yaml")), ids=lambda p: str(p.relative_to(ROOT / "configs"))
)
def test_every_shipped_config_is_accepted_and_builds(path: Path) -> None:
    from medssml.config import build, load_config
    from medssml.model import MultimodalModel
    from medssml.objectives import Objective
    from medssml.runs.training_config import FinetuneConfig, PretrainConfig
    from medssml.transforms.road import Road, built_road

    if path.parent.name == "prompts":
        from medssml.evaluation.zero_shot import read_prompts

        assert read_prompts(path)
        return
    if "finetune" in str(path.relative_to(ROOT / "configs")):
        load_config(path, FinetuneConfig)
        return
    config = load_config(path, PretrainConfig)
    model = build(config.model, MultimodalModel)
    assert all(isinstance(built_road(name, part), Road) for name, part in config.transforms.items())
    assert set(config.transforms) == set(model.modalities)
    for node in config.objectives:
        assert isinstance(build(node, Objective, model=model), Objective)
