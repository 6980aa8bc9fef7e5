"""The documentation as a site: links that leave docs/, pages that fetch nothing, a reference without gaps."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"


@pytest.fixture(scope="module")
def links() -> ModuleType:
    return hook("docs_links")


def hook(name: str) -> ModuleType:
    """A file of tools/, loaded as mkdocs loads it."""
    pytest.importorskip("mkdocs", reason="the extra [docs] is not installed")
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def page(src_uri: str) -> SimpleNamespace:
    return SimpleNamespace(file=SimpleNamespace(src_uri=src_uri))


@pytest.mark.parametrize("path", ["docs/methods/simclr.md", "CHANGELOG.md", "LICENSE", "configs/smoke/simclr.yaml"])
def test_a_page_shows_one_file(links: ModuleType, path: str) -> None:
    assert links.origin_of(links.page_of(path)) == path


@pytest.mark.parametrize(
    ("here", "link", "led"),
    [
        ("index.md", "check.md#budgets", "check.md#budgets"),
        ("methods/simclr.md", "../../configs/smoke/simclr.yaml", "../source/configs/smoke/simclr.yaml.md"),
        ("extending.md", "../medssml/objectives/moco_v3.py", "source/medssml/objectives/moco_v3.py.md"),
        ("source/CHANGELOG.md", "docs/check.md#budgets", "../check.md#budgets"),
        ("index.md", "https://example.org/check.md", "https://example.org/check.md"),
        ("index.md", "no_such_page.md", "no_such_page.md"),
    ],
)
def test_links_lead_to_the_page_that_shows_their_target(links: ModuleType, here: str, link: str, led: str) -> None:
    assert links.on_page_markdown(f"[words]({link})", page(here), {}, None) == f"[words]({led})"


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://example.org/a.js"></script>',
        "<script async src=//example.org/a.js></script>",
        '<link rel="stylesheet" href="https://example.org/a.css">',
        '<img alt="x" src="http://example.org/a.png">',
    ],
)
def test_a_page_that_fetches_something_fails_the_build(links: ModuleType, html: str) -> None:
    with pytest.raises(Exception, match=r"index.md loads .*example.org"):
        links.on_post_page(html, page("index.md"), {})


def test_a_page_may_name_other_sites_and_load_its_own_files(links: ModuleType) -> None:
    html = '<a href="https://example.org">x</a><script src="assets/a.js"></script><link rel="canonical" href="https://a.b">'
    assert links.on_post_page(html, page("index.md"), {}) == html


def public_classes(package: str) -> list[str]:
    """Module and name of everything that a package exports."""
    module = importlib.import_module(package)
    exported = [getattr(module, name) for name in module.__all__]
    return [
        f"{o.__module__}.{o.__qualname__}" for o in exported if str(getattr(o, "__module__", "")).startswith("medssml")
    ]


@pytest.mark.parametrize("part", ["encoders", "fusion", "objectives", "losses", "transfer", "transforms"])
def test_the_reference_has_everything_that_a_package_exports(part: str) -> None:
    text = (REFERENCE / f"{part}.md").read_text("utf-8")
    assert [name for name in public_classes(f"medssml.{part}") if f"::: {name}\n" not in text] == []


def test_the_reference_has_every_verb_and_every_measure() -> None:
    from medssml import cli
    from medssml.counterfactual import measures

    verbs = (REFERENCE / "verbs.md").read_text("utf-8")
    functions = [cli.function_of(name) for name in cli.VERBS]
    assert [f.__name__ for f in functions if f"::: {f.__module__}.{f.__name__}\n" not in verbs] == []
    text = (REFERENCE / "counterfactual.md").read_text("utf-8")
    files = [info.name for info in pkgutil.iter_modules(measures.__path__)]
    assert [file for file in files if f"::: medssml.counterfactual.measures.{file}." not in text] == []


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    return hook("docs_figures")


def marked(figures: ModuleType, page: str = "*") -> set[str]:
    """Names of the figures that pages of the gallery show."""
    pages = (ROOT / "docs" / "gallery").glob(f"{page}.md")
    return {name for path in pages for name, _ in figures.MARK.findall(path.read_text("utf-8"))}


@pytest.mark.slow
def test_every_figure_of_the_gallery_is_shown_and_every_shown_one_is_drawn(figures: ModuleType) -> None:
    assert marked(figures) == set(figures.figures())


def test_the_gallery_has_every_transform(figures: ModuleType) -> None:
    from medssml import transforms

    # The chains themselves are shown by their steps.
    chains = {"Road", "Transform", "ReportTransform", "TableTransform"}
    text = "".join(path.read_text("utf-8") for path in (ROOT / "configs").rglob("*.yaml"))
    monai = set(re.findall(r"monai\.transforms\.(\w+)", text)) - {"CenterSpatialCropd"}  # in one figure with the window
    assert (set(transforms.__all__) - chains | monai) - marked(figures, "transforms") == set()


def test_the_gallery_has_every_measure_of_impact_and_every_mechanism(figures: ModuleType) -> None:
    from typing import get_args

    from medssml.counterfactual.measures import MEASURES
    from medssml.phantom.missingness import Mechanism

    assert {measure.name for measure in MEASURES} == marked(figures, "impact")
    assert set(get_args(Mechanism)) - marked(figures, "missing") == set()


@pytest.mark.slow
def test_a_figure_is_the_same_at_every_build(figures: ModuleType) -> None:
    once = figures.drawn("LoadTabled")
    assert "crp" in once and once == figures.drawn("LoadTabled")


def test_a_figure_takes_the_place_of_its_mark(figures: ModuleType) -> None:
    made = figures.on_page_markdown("<!-- figure: mar Rises with age -->", page("gallery/missing.md"), {}, None)
    assert made == "![Rises with age](../assets/gallery/mar.svg){.figure}"


def test_a_page_with_an_unknown_figure_fails_the_build(figures: ModuleType) -> None:
    asking = SimpleNamespace(content_string="<!-- figure: no_such words -->", src_uri="gallery/impact.md")
    files = SimpleNamespace(documentation_pages=lambda: [asking])
    with pytest.raises(Exception, match=r"gallery/impact.md: no figure 'no_such'"):
        figures.on_files(files, {})
