"""Pages that run as a reader runs them: in an empty folder, from top to bottom, with nothing made beforehand."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from medssml import cli
from tests.test_docs import ALONE, ROOT, Snippet, snippets

TUTORIALS = tuple(page for page in ALONE if page.startswith("tutorials/"))
#: Verb -> flags added to its commands: the same verbs on a small cohort, with a few steps.
SHORT = {
    "phantom": ["--preset", "small", "--studies", "40", "--workers", "1"],
    "pretrain": ["--set", "trainer.max_steps=2", "--set", "trainer.validate_every=0", "--no-track"],
    "finetune": ["--set", "trainer.max_steps=2", "--set", "trainer.validate_every=0", "--no-track"],
    "impact": [],
}
#: Flags whose values are replaced: models of minutes by one of seconds.
SMALL = {"--config": {"pretrain": "smoke/pretrain", "finetune": "smoke/finetune"}, "--architecture": "smoke/pretrain"}


def blocks_of(page: str, *languages: str) -> list[Snippet]:
    return [block for block in snippets(*languages, page=ROOT / "docs" / page) if block.why is None]


def saved(block: Snippet, folder: Path) -> None:
    """A block with a title is saved by the reader under this name."""
    if block.title is not None:
        (folder / block.title).write_text(block.text, "utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", TUTORIALS)
def test_the_python_blocks_of_a_tutorial_run_in_a_fresh_interpreter(page: str, tmp_path: Path) -> None:
    blocks = blocks_of(page, "python")
    for block in blocks:
        saved(block, tmp_path)
    (tmp_path / "page.py").write_text("\n".join(block.text for block in blocks), "utf-8")
    environment = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "page.py"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-2000:]


def shortened(words: list[str]) -> list[str]:
    """A command of medssml, without the word itself, in its short form."""
    verb, flags = words[0], list(words[1:])
    if "--print-config" in flags:
        return [verb, *flags]
    for place, flag in enumerate(flags[:-1]):
        small = SMALL.get(flag)
        value = small.get(verb) if isinstance(small, dict) else small
        if value is not None and not flags[place + 1].startswith("lab/"):
            flags[place + 1] = value
    return [verb, *flags, *SHORT.get(verb, [])]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", ALONE)
def test_the_commands_of_a_page_run_in_their_order(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "page"}
    # The Python of a tutorial needs none of its commands, and has a test of its own.
    languages = ("bash",) if page in TUTORIALS else ("bash", "python")
    for block in blocks_of(page, *languages):
        if block.language == "python":
            exec(compile("\n" * block.line + block.text, page, "exec"), names)
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "medssml" and not {"--self-test", "study"} & set(words):  # minutes to hours
                code = cli.main(shortened(words[1:]))
                assert code == 0, f"{page}:{block.line}: {line}"
