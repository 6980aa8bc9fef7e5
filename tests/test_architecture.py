"""The shape of the code: which part may import which, which framework lives where, and how large a piece may be.

Imports are read from the syntax tree, those inside functions and under TYPE_CHECKING included.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from medssml import cli
from medssml.cli import VERBS

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "medssml"

#: From the ground up. A part may import what lies on a lower floor, never its neighbours or what lies above.
#: The first line is language and foundation: what a config and a message are made of.
FLOORS: tuple[frozenset[str], ...] = (
    frozenset({"bounds", "yaml_lines", "files", "foreign_text", "randomness", "overview"}),
    frozenset({"schema", "monai_names"}),
    frozenset({"shipped_configs"}),
    frozenset({"config"}),
    frozenset({"batch", "readers", "losses", "layers", "checkpoint", "privacy", "provenance", "statistics"}),
    frozenset({"manifest", "transforms", "decoders", "drafts", "encoders", "fusion", "spaces", "standardise"}),
    frozenset({"checks", "store", "model", "phantom", "importers", "obstacles"}),
    frozenset({"data"}),
    frozenset({"predictor"}),
    frozenset({"objectives", "missing", "evaluation"}),
    frozenset({"trainers", "transfer", "counterfactual"}),
    frozenset({"reports", "results", "tracking"}),
    frozenset({"runs"}),
    frozenset({"verbs"}),
    frozenset({"studies"}),
    frozenset({"api", "cli"}),
    frozenset({"__main__"}),
)
LEVEL = {part: level for level, floor in enumerate(FLOORS) for part in floor}

#: Framework -> where it may be imported, as prefixes of the path below medssml/.
CONTAINED = {
    "monai": ("readers/", "data/", "transforms/", "encoders/", "obstacles/"),
    "lightning": ("data/datamodule.py", "trainers/", "transfer/", "runs/", "verbs/"),
    "pytorch_lightning": (),
    "mlflow": ("tracking/",),
    "mne": ("readers/fif.py",),
    "jsonargparse": ("cli.py",),
    "nibabel": ("readers/", "phantom/", "importers/rad_chest_ct.py"),
    "pydicom": ("readers/", "phantom/", "importers/dicom_copies.py", "importers/dicom_tree.py", "verbs/doctor.py"),
    "edfio": ("phantom/",),
    "cleanlab": ("evaluation/suspects.py",),
    "matplotlib": ("reports/", "verbs/"),
    "pickle": (),
}
#: Imported name -> name of the package, where the two differ.
DISTRIBUTION = {"PIL": "pillow", "skimage": "scikit-image", "sklearn": "scikit-learn", "yaml": "pyyaml"}
#: A script that runs in an environment of its own -> what it imports there; its first lines say how that is made.
ELSEWHERE = {"benchmark_peers.py": frozenset({"imml", "multivae"})}
MAX_LINES = 450
MAX_FUNCTION = 70
FORBIDDEN_WORDS = ("utils", "misc", "helpers", "common", "registry", "manager")


@cache
def modules() -> tuple[tuple[str, ast.Module], ...]:
    """(path below medssml/, syntax tree) of every module."""
    paths = sorted(PACKAGE.rglob("*.py"))
    return tuple((path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text("utf-8"))) for path in paths)


def imports(tree: ast.Module, path: str) -> Iterator[tuple[int, str]]:
    """(line, absolute module name) of every import; ``from medssml import x`` counts as medssml.x."""
    package = ["medssml", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = ".".join([*package[: len(package) - node.level + 1], *([base] if base else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if _is_module(base, alias.name) else base


def _is_module(package: str, name: str) -> bool:
    """Whether ``from package import name`` brings a module of ours, and not a thing in one."""
    folder = ROOT.joinpath(*package.split("."))
    return package == "medssml" or (package.startswith("medssml.") and (folder / f"{name}.py").exists())


def part_of(path: str) -> str:
    """The part that a file belongs to: its top-level package or module."""
    return path.split("/")[0].removesuffix(".py")


def violations_of_floors(files: tuple[tuple[str, ast.Module], ...]) -> list[str]:
    found = []
    for path, tree in files:
        part = part_of(path)
        if part == "__init__":
            continue
        for line, name in imports(tree, path):
            if not name.startswith("medssml."):
                continue
            other = name.split(".")[1]
            if other.startswith("__"):
                continue
            if other not in LEVEL:
                found.append(f"{path}:{line}: imports medssml.{other}, which has no floor")
            elif other != part and LEVEL[other] >= LEVEL[part]:
                found.append(f"{path}:{line}: {part} must not import {other}")
    return found


def test_every_part_has_a_floor() -> None:
    parts = {part_of(path) for path, _ in modules()} - {"__init__"}
    assert parts - set(LEVEL) == set(), "give the new part a floor in FLOORS and in docs/architecture.md"


def test_imports_point_to_lower_floors_only() -> None:
    assert violations_of_floors(modules()) == []


def test_the_rule_sees_lazy_and_relative_imports() -> None:
    tree = ast.parse(
        "def f():\n    from medssml.trainers import x\n    from ..model import y\n    from medssml import cli\n"
    )
    assert len(violations_of_floors((("encoders/bad.py", tree),))) == 3


@pytest.mark.parametrize("framework", sorted(CONTAINED))
def test_a_framework_stays_where_it_belongs(framework: str) -> None:
    found = [
        f"{path}:{line}: imports {name}"
        for path, tree in modules()
        for line, name in imports(tree, path)
        if name.split(".")[0] == framework and not path.startswith(CONTAINED[framework])
    ]
    assert found == []


def test_verbs_and_cli_import_nothing_heavy_at_module_level() -> None:
    light = {
        "medssml.verbs",
        "medssml.runs.console",
        "medssml.runs.progress",
        "medssml.foreign_text",
        "medssml.overview",
        "medssml.schema",
        "medssml.config",
        "medssml.cli",
    }
    heavy = {"torch", "numpy", "pandas", "scipy", "sklearn", *CONTAINED} - {"jsonargparse"}
    found = []
    for path, tree in modules():
        if path not in ("cli.py", "verbs/__init__.py", "runs/console.py", *map(file_of, VERBS)):
            continue
        eager = [n for n in tree.body if not isinstance(n, (ast.FunctionDef, ast.ClassDef)) and not _type_checking(n)]
        for node in eager:
            for line, name in imports(ast.Module([node], []), path):
                ours = name.startswith("medssml.") and name not in light and not name.startswith("medssml.verbs.")
                if ours or name.split(".")[0] in heavy:
                    found.append(f"{path}:{line}: imports {name} before the verb runs")
    assert found == []


def file_of(verb: str) -> str:
    return cli.function_of(verb).__module__.removeprefix("medssml.").replace(".", "/") + ".py"


def _type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def test_only_verbs_print() -> None:
    found = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
        if part_of(path) not in ("verbs", "runs", "cli")
    ]
    assert found == []


def codes_of(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, code) of every finding that is raised, noted or listed."""
    places = {"Note": 1, "Flag": 1, "Finding": 0, "Problem": 4, "flag_studies": 1}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        given = [word.value for word in node.keywords if word.arg == "code" and name.endswith(("Error", *places))]
        given += node.args[places[name] : places[name] + 1] if name in places else []
        yield from ((g.lineno, g.value) for g in given if isinstance(g, ast.Constant) and isinstance(g.value, str))


def test_every_code_of_a_finding_has_a_level() -> None:
    from medssml.manifest.levels import CODES, LEVELS

    found = [(path, *code) for path, tree in modules() if path != "verbs/doctor.py" for code in codes_of(tree)]
    assert len(found) > 100
    unknown = [f"{path}:{line}: {code}" for path, line, code in found if code not in CODES]
    assert unknown == [], "give the code a level in medssml/manifest/levels.py and in docs/check.md"
    assert {code.level for code in CODES.values()} == set(LEVELS)


def test_no_bare_assert_in_the_library() -> None:
    found = [f"{path}:{n.lineno}" for path, tree in modules() for n in ast.walk(tree) if isinstance(n, ast.Assert)]
    assert found == []


def test_nothing_loads_pickle() -> None:
    """Checkpoints, caches and arrays from elsewhere must not run code."""
    found = []
    for path, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.keyword) and isinstance(node.value, ast.Constant):
                if (node.arg, node.value.value) in (("weights_only", False), ("allow_pickle", True)):
                    found.append(f"{path}:{node.value.lineno}: {node.arg}={node.value.value}")
    assert found == []


def test_files_are_written_in_one_way() -> None:
    """`medssml.files` writes a file whole; a rename elsewhere says why it is not that."""
    allowed = {
        "files.py",
        "trainers/checkpoint.py",  # last.ckpt becomes previous.ckpt
        "store/shard_folder.py",  # a file of a size that other processes count while it is fetched
    }
    names = {"os.replace", "os.rename", "tempfile.NamedTemporaryFile", "tempfile.mkstemp"}
    found = [
        f"{path}:{node.lineno}"
        for path, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node) in names and path not in allowed
    ]
    assert found == [], "use medssml.files"


def test_no_kitchen_sinks_and_at_most_two_levels() -> None:
    for path, _ in modules():
        assert path.count("/") <= 2, f"{path} lies deeper than two levels"
        assert not any(word in path.removesuffix(".py").split("/")[-1].split("_") for word in FORBIDDEN_WORDS), path


def test_tables_are_written_in_one_way() -> None:
    """A cell that a spreadsheet would run is made harmless in `medssml.files` alone; a text for a digest is no file."""
    scripts = [(path.name, ast.parse(path.read_text("utf-8"))) for path in (ROOT / "pipelines").glob("*.py")]
    found = []
    for path, tree in [*modules(), *scripts]:
        for node in ast.walk(tree):
            name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if name in ("writer", "DictWriter") or (name == "to_csv" and isinstance(node, ast.Call) and node.args):
                found.append(f"{path}:{getattr(node, 'lineno', 0)}")
    assert [place for place in found if not place.startswith("files.py:")] == [], "use medssml.files"


def test_files_and_functions_stay_readable() -> None:
    found = []
    for path, tree in modules():
        lines = (PACKAGE / path).read_text("utf-8").count("\n")
        if lines > MAX_LINES:
            found.append(f"{path}: {lines} lines, at most {MAX_LINES}")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
                length = (node.end_lineno or node.lineno) - first.lineno + 1
                if length > MAX_FUNCTION:
                    found.append(f"{path}:{node.lineno}: the body of {node.name} has {length} lines")
    assert found == []


def test_every_module_and_public_class_says_what_it_is_for() -> None:
    found = []
    for path, tree in modules():
        empty = not tree.body
        if not empty and ast.get_docstring(tree) is None:
            found.append(f"{path}: no docstring")
        for node in tree.body:
            public = isinstance(node, (ast.ClassDef, ast.FunctionDef)) and not node.name.startswith("_")
            if public and ast.get_docstring(node) is None:  # type: ignore[arg-type]
                found.append(f"{path}:{node.lineno}: {node.name} has no docstring")  # type: ignore[union-attr]
    assert found == []


def test_no_word_about_where_or_how_this_was_written() -> None:
    """The tree holds no absolute path of a home folder and no unfinished work."""
    words = ("/wo" + "rk/", "/ho" + "me/", "TO" + "DO", "FIX" + "ME", "X" + "XX", "place" + "holder", "for" + " now")
    found = []
    for folder in ("medssml", "pipelines", "configs", "docs", "tools"):
        for file in sorted((ROOT / folder).rglob("*")):
            if file.suffix in (".py", ".yaml", ".md", ".sh"):
                text = file.read_text("utf-8")
                found += [f"{file.relative_to(ROOT)}: {word}" for word in words if word in text]
    assert found == []


def test_nothing_but_what_belongs_is_tracked() -> None:
    """Prepared studies, runs and weights that a command left in the tree must not be committed with it."""
    import shutil
    import subprocess

    git = shutil.which("git")
    if git is None or not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run([git, "-C", str(ROOT), "ls-files"], check=True, capture_output=True, text=True).stdout
    files = [Path(line) for line in listed.splitlines()]
    folders = {"medssml", "configs", "pipelines", "tests", "docs", "tools", ".ci", ".github"}
    assert {path.parts[0] for path in files if len(path.parts) > 1} <= folders
    kinds = {".py", ".md", ".yaml", ".yml", ".toml", ".css", ".j2", ".js", ".sh", ".lock", ".cff", ""}
    # A line of figures for each finished cell of a long study, so that it goes on anywhere.
    cells = {path for path in files if path.parent == Path("docs/results") and path.suffix == ".jsonl"}
    assert sorted(str(path) for path in set(files) - cells if path.suffix not in kinds) == []


def test_a_checked_config_is_an_object_and_nothing_reads_it_as_a_dictionary() -> None:
    """mypy knows the attributes of an object; a key that nobody has would be found by whoever runs that line."""
    rooms, names = ("runs/", "verbs/", "trainers/", "studies/"), ("config", "settings", "resolved")
    found = [
        f"{path}:{node.lineno}: {node.value.id}[...]"
        for path, tree in modules()
        for node in ast.walk(tree)
        if path.startswith(rooms) and isinstance(node, ast.Subscript)
        if isinstance(node.value, ast.Name) and node.value.id in names
    ]
    assert found == []


def test_what_is_pinned_installs_on_the_oldest_python_that_is_promised() -> None:
    """Debian's Python is 3.11.2: a release for 3.11.5 and newer would end the first command of the README."""
    import tomllib
    from importlib.metadata import metadata

    from packaging.specifiers import SpecifierSet

    promised = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    least = f"{promised.removeprefix('>=')}.0"
    pins = [line.split("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    needs = {name: metadata(name).get("Requires-Python") or "" for name in pins}
    assert {name: need for name, need in needs.items() if not SpecifierSet(need).contains(least)} == {}


def test_the_lock_matches_the_project() -> None:
    import tomllib

    from packaging.requirements import Requirement

    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    pins = dict(line.split("==") for line in lines)
    assert all("+" not in version for version in pins.values()), "a local version exists on one platform only"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for text in [*project["dependencies"], *project["optional-dependencies"]["dev"]]:
        requirement = Requirement(text)
        name = requirement.name.lower().replace("_", "-")
        assert name in pins, f"{name} is not in requirements.lock; run make lock"
        assert pins[name] in requirement.specifier, (
            f"{name}=={pins[name]} is not {requirement.specifier}; run make lock"
        )


def test_every_imported_package_is_declared() -> None:
    import re
    import sys
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    declared = {re.split(r"[\[<>=~! ]", text)[0].lower() for text in [*project["dependencies"], *extras]}
    scripts = ((path.name, ast.parse(path.read_text("utf-8"))) for path in (ROOT / "pipelines").glob("*.py"))
    imported = {
        part
        for path, tree in [*modules(), *scripts]
        for part in {name.split(".")[0] for _, name in imports(tree, path)} - ELSEWHERE.get(path, frozenset())
    }
    beside = {path.stem for path in (ROOT / "pipelines").glob("*.py")}
    foreign = imported - set(sys.stdlib_module_names) - {"medssml"} - beside
    distributions = {DISTRIBUTION.get(name, name.replace("_", "-")).lower() for name in foreign}
    assert distributions - declared == set(), "declare it in pyproject.toml, then run make lock"


def test_the_version_is_the_same_everywhere() -> None:
    import tomllib

    import medssml

    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == medssml.__version__
    assert f"## {medssml.__version__}" in (ROOT / "CHANGELOG.md").read_text()
