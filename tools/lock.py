"""Writes requirements.lock: what medssml, its tests and its documentation need, pinned, as pip's own resolver finds it.

Usage: python tools/lock.py. The file names no index and no host, carries no local version (torch 2.x, not 2.x+cpu) and
leaves out the GPU runtime, which pip adds by itself where the platform's torch build asks for it.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
HEADER = """\
# Pinned versions of everything in pyproject.toml's dependencies and its extras [dev] and [docs].
# Made by `make lock`; change pyproject.toml, not this file.
"""
#: The release that the published results were measured with, pyproject.toml allows newer ones; and the last that Python 3.11.0
#: installs. Raise them on purpose.
HELD = "torch==2.13.0\npymdown-extensions<13\n"
#: Parts of a platform's torch build, not ours to pin.
PLATFORM = re.compile(r"^(nvidia-|cuda-|triton$|pytorch-triton)")


def normalise(name: str) -> str:
    """The name as PEP 503 compares it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def resolve() -> dict[str, str]:
    """Package -> version, as pip would install them into an empty environment."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        held = Path(folder) / "held.txt"
        held.write_text(HELD)
        command = [sys.executable, "-m", "pip", "install", "-qq", "--dry-run", "--ignore-installed"]
        subprocess.run([*command, "--constraint", str(held), "--report", str(report), f"{ROOT}[dev,docs]"], check=True)
        found = json.loads(report.read_text())["install"]
    refuse_newer_python(found)
    versions = {normalise(item["metadata"]["name"]): item["metadata"]["version"] for item in found}
    return {k: v.split("+")[0] for k, v in versions.items() if k != "medssml" and not PLATFORM.match(k)}


def refuse_newer_python(found: list[dict[str, dict[str, str]]]) -> None:
    """A release for newer Pythons alone than pyproject.toml promises cannot be installed by who has an older one."""
    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = f"{promised.removeprefix('>=')}.0"
    for item in found:
        name, needs = item["metadata"]["name"], item["metadata"].get("requires_python") or ""
        if not SpecifierSet(needs).contains(least):
            version = item["metadata"]["version"]
            raise SystemExit(
                f"{name} {version} needs Python {needs}, the lock is for {least}; fix: name an older release in HELD"
            )


def main() -> None:
    """Writes the lock and says what changed."""
    before = set(LOCK.read_text().splitlines()) if LOCK.exists() else set()
    lines = [f"{name}=={version}" for name, version in sorted(resolve().items())]
    LOCK.write_text(HEADER + "\n".join(lines) + "\n")
    changed = [line for line in lines if line not in before]
    print(f"{LOCK.name}: {len(lines)} packages, {len(changed)} changed")
    for line in changed if before else []:
        print(f"  {line}")


if __name__ == "__main__":
    main()
