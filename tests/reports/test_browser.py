"""Every page in headless Chromium: wide and on a phone, by day and in the dark, on paper; skipped where there is none."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medssml.reports import write_report
from medssml.reports.compare_page import write_compare_page
from medssml.reports.comparison_page import write_study_page
from medssml.verbs.check import check
from tests.reports.synthetic import compared_runs, study_results, write_cohort, write_run

BROWSERS = ("chromium", "google-chrome", "chromium-browser", "chrome")
QUIET = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
PAGES = ("report", "impact", "check", "study", "compare")
PHONE, DESK = 420, 1400
#: Text of a figure that is smaller on the screen cannot be read, pixels.
LEAST_TEXT = 9

#: What sticks out: elements beyond the window, boxes that have to be scrolled, words of a figure beyond its edge.
STICKING_OUT = """() => {
  const wide = document.documentElement.clientWidth, found = [];
  const named = (e) => e.tagName + '.' + (e.getAttribute('class') || '') + ': ' + (e.textContent || '').slice(0, 60);
  if (document.documentElement.scrollWidth > wide) found.push('the page is ' + document.documentElement.scrollWidth);
  for (const e of document.querySelectorAll('body *')) {
    if (e.closest('svg') && e.tagName !== 'svg') continue;
    const box = e.getBoundingClientRect();
    if (!box.width || !box.height) continue;
    if (box.right > wide + 1 || box.left < -1) found.push('beyond the window: ' + named(e));
    if (e.scrollWidth > e.clientWidth + 1 && e.clientWidth && getComputedStyle(e).overflowX !== 'visible')
      found.push('to be scrolled: ' + named(e));
  }
  for (const svg of document.querySelectorAll('svg')) {
    const frame = svg.getBoundingClientRect();
    if (!frame.width) continue;
    for (const text of svg.querySelectorAll('text')) {
      const box = text.getBoundingClientRect();
      if (box.right > frame.right + 2 || box.left < frame.left - 2 || box.bottom > frame.bottom + 3 || box.top < frame.top - 3)
        found.push('clipped in "' + svg.getAttribute('aria-label') + '": ' + text.textContent);
    }
  }
  return found;
}"""
#: (pixels, words) of the smallest text of any figure.
SMALLEST = """() => {
  let least = [1000, 'no figure'];
  for (const text of document.querySelectorAll('svg text')) {
    if (!text.getBoundingClientRect().width) continue;
    const turned = text.getScreenCTM();
    const size = Math.hypot(turned.a, turned.b) * parseFloat(getComputedStyle(text).fontSize);
    if (size < least[0]) least = [size, text.textContent];
  }
  return least;
}"""
#: Words whose contrast with the paper is below 3 to 1; those on a coloured cell of a figure have an ink of their own.
FAINT = """() => {
  const light = (text) => {
    const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => {
      v /= 255; return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const paper = light(getComputedStyle(document.body).backgroundColor), found = [];
  for (const e of document.querySelectorAll('svg text, main p, main td, main li, main h2, main summary, figcaption')) {
    if (!e.getBoundingClientRect().width || ['#ffffff', '#10202f'].some((c) => (e.getAttribute('style') || '').includes(c)))
      continue;
    const style = getComputedStyle(e), ink = light(e.tagName === 'text' ? style.fill : style.color);
    const contrast = (Math.max(ink, paper) + 0.05) / (Math.min(ink, paper) + 0.05);
    if (contrast < 3) found.push(contrast.toFixed(1) + ': ' + e.textContent.slice(0, 60));
  }
  return [paper, found];
}"""
#: Folds whose content is not to be seen.
HIDDEN = """() => [...document.querySelectorAll('details')].filter((fold) => {
  const inside = fold.querySelector('summary').nextElementSibling;
  return inside && !(inside.checkVisibility() && inside.getBoundingClientRect().height > 0);
}).map((fold) => fold.querySelector('summary').textContent)"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium, the system's."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: extra [dev]")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"no browser on the path: none of {', '.join(BROWSERS)}")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=list(QUIET))
        yield found
        found.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One of every kind of page, with everything on it."""
    root = tmp_path_factory.mktemp("pages")
    run = write_run(root / "run")
    cohort = write_cohort(root / "cohort")
    checked = root / "check.html"
    check(cohort / "manifest.csv", deep=True, problems=root / "p.csv", report=checked)
    return {
        "report": write_report(run),
        "impact": write_report(run / "impact" / "nodule", root / "impact.html", only=["impact"]),
        "check": checked,
        "compare": write_compare_page(root / "compare.html", *compared_runs()),
        "study": write_study_page(root / "study.html", study_results(), {"interval": "95 %, by subjects"}),
    }


def opened(browser: Any, path: Path, width: int, scheme: str) -> tuple[Any, list[str]]:
    """The page with all folds open, and what the browser said or asked for meanwhile."""
    heard: list[str] = []
    page = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme).new_page()
    page.on("console", lambda message: heard.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: heard.append(f"error: {error}"))
    page.on("request", lambda asked: heard.append(asked.url) if not asked.url.startswith("data:") else None)
    page.goto(path.as_uri())
    page.evaluate("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    return page, heard


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [PHONE, DESK])
@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_whole_quiet_and_legible(
    browser: Any, pages: dict[str, Path], name: str, width: int, scheme: str
) -> None:
    page, heard = opened(browser, pages[name], width, scheme)
    assert heard == [pages[name].as_uri()], "nothing but the page itself is asked for, and nothing is said"
    assert page.evaluate(STICKING_OUT) == []
    size, text = page.evaluate(SMALLEST)
    assert size >= LEAST_TEXT, f"{text!r} is {size:.1f} px high"
    paper, faint = page.evaluate(FAINT)
    assert faint == [] and (paper < 0.1) == (scheme == "dark")
    page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_on_paper_every_fold_is_open_and_the_paper_is_white(browser: Any, pages: dict[str, Path], name: str) -> None:
    page = browser.new_context(color_scheme="dark").new_page()
    page.goto(pages[name].as_uri())
    assert page.evaluate(HIDDEN), "on the screen they are closed"
    page.emulate_media(media="print")
    assert page.evaluate(HIDDEN) == []
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.context.close()
