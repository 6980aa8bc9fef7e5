import json
import logging
import re
import shutil
from html.parser import HTMLParser

import pytest

from medssml.reports import SECTIONS, write_report
from medssml.reports.run_sections import panels_of
from medssml.verbs.report import report
from tests.reports.synthetic import SECRET, TASKS, metrics, write_run

VOID = {"meta", "br", "img", "input", "hr", "link"}


class Page(HTMLParser):
    """What a page holds: tags that are closed, anchors, what it refers to, its words."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.loads, self.words, self.images = [], [], [], [], [], []
        self.feed(text)
        assert self.open == [], "every tag is closed"

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values["href"])
        for name in ("src", "srcset", "data", "xlink:href", "href"):
            if tag != "a" and name in values:
                self.loads.append(values[name])
        if tag == "svg":
            self.images.append(values)

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("report") / "demo run")


@pytest.fixture(scope="module")
def text(run):
    return report(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text):
    return Page(text)


def test_one_file_beside_the_results(run, text):
    assert (run / "report.html").is_file()
    assert not list(run.glob(".report*"))
    assert len(text) < 2_000_000


def test_every_section_is_there_and_in_the_contents(page):
    anchors = [anchor for anchor, *_ in SECTIONS]
    assert [link for link in page.links if link.startswith("#")] == [f"#{anchor}" for anchor in [*anchors, "words"]]
    assert set(anchors) <= set(page.ids)
    assert "Not in this report" not in "".join(page.words)


def test_it_loads_nothing_from_anywhere(text, page):
    assert all(target.startswith(("#", "data:")) for target in page.loads)
    assert all(link.startswith("#") for link in page.links)
    outside = set(re.findall(r"https?://[^\s\"'<>]+", text))
    assert outside <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }  # names of languages, not addresses
    assert "<script" not in text
    assert "default-src 'none'" in text
    assert not re.search(r"@import|url\((?!#)", text)


def test_no_name_no_path_no_file_of_a_patient(text):
    for hidden in (SECRET, "MUELLER", "mueller", "/mnt", ".nii.gz", ".edf", ".dcm"):
        assert hidden not in text, hidden


def test_figures_say_what_they_show(page):
    assert len(page.images) > 10
    assert all(image["role"] == "img" and len(image["aria-label"]) > 20 for image in page.images)
    assert all("viewbox" in image for image in page.images)


def test_ids_within_figures_are_not_shared(text):
    """A clip path that another figure defines differently would cut the wrong things off."""
    found = {}
    for identity, body in re.findall(r'<clipPath id="([^"]+)">(.*?)</clipPath>', text, flags=re.DOTALL):
        assert found.setdefault(identity, body) == body


def test_the_numbers_are_those_of_the_files(run, page):
    words = " ".join(page.words)
    metrics_of = json.loads((run / "evaluation/metrics.json").read_text())["tasks"]
    for task, content in metrics_of.items():
        assert task in words
        found = content["subsets"]["ct+xray+eeg+report"]["auroc"]
        assert f"{found['estimate']:.3f} ({found['ci_low']:.3f} to {found['ci_high']:.3f})" in words
        assert f"{content['subsets']['ct+xray+eeg+report']['bayes']['auroc']['estimate']:.3f}" in words
    assert "CT → report" in words
    assert "Bayes predictor" in words
    assert "Not enough labelled studies: EEG." in words


def test_same_files_same_page(run, text, tmp_path):
    assert write_report(run, tmp_path / "again.html").read_text(encoding="utf-8") == text


def test_only_some_sections(run, tmp_path):
    folder = tmp_path / "one"
    shutil.copytree(run / "impact/nodule", folder)
    shutil.copytree(run / "impact/epileptiform", folder / "before")
    page = Page(write_report(folder, tmp_path / "impact.html", only=["impact"]).read_text(encoding="utf-8"))
    assert page.links == ["#impact", "#words"]
    assert "nodule" in " ".join(page.words) and "epileptiform" not in " ".join(page.words), (
        "its own file, no folder below"
    )


def test_the_page_shows_every_measure_that_the_file_names(tmp_path):
    """Quantity, heading and sentence come from the file: a further measure needs no line here."""
    interval = {"estimate": 0.25, "ci_low": 0.125, "ci_high": 0.5, "n": 9}
    found = {
        "task": "nodule",
        "measures": {
            "novel": {
                "headings": {"novel_abs": "size of novelty", "novel": "novelty"},
                "words": "Novelty: what is new.",
            },
            "unused": {"headings": {"unused": "no column"}, "words": "Unused: not here."},
        },
        "modalities": {"ct": {"novel": interval, "novel_abs": interval}},
        "truth": {"pairs": [{"quantity": "novel", "modality": "ct", "truth": 0.375}]},
    }
    (tmp_path / "impact.json").write_text(json.dumps(found))
    words = " ".join(" ".join(Page(write_report(tmp_path, only=["impact"]).read_text(encoding="utf-8")).words).split())
    # What cannot cancel comes first; a signed mean is folded away, behind the sentence that says why.
    first, folded = words.split("Signed means of the predictions")
    assert "modality size of novelty CT 0.250 (0.125 to 0.500)" in first and "0.375" not in first
    assert (
        "modality novelty true value CT 0.250 (0.125 to 0.500) 0.375" in folded and "has a signed mean near 0" in folded
    )
    assert "Novelty: what is new. Means over" in words and "Unused" not in words


def test_a_task_that_was_not_learned_is_pale_with_the_reason_and_remarks_are_told(run, tmp_path):
    found = json.loads((run / "impact/nodule/impact.json").read_text())
    found["protocol"] = {"remarks": ["this model never saw a study without ct"]}
    quality = found["performance"] | {"observed": {"estimate": 0.8, "ci_low": 0.7, "ci_high": 0.9, "n": 99}}

    def page_of(quality):
        (tmp_path / "impact.json").write_text(json.dumps(found | {"performance": quality}))
        return write_report(tmp_path, only=["impact"]).read_text(encoding="utf-8")

    learned = page_of(quality)
    assert 'class="pale"' not in learned and "counts most" in learned
    assert "This model never saw a study without ct." in learned
    chance = page_of(quality | {"observed": {"estimate": 0.52, "ci_low": 0.4, "ci_high": 0.6, "n": 99}})
    assert 'class="pale"' in chance and "Not to be relied on" in chance and "counts most" not in chance


def test_what_a_page_was_made_by_is_on_top_without_the_folders_of_paths(run, tmp_path, monkeypatch):
    from medssml import __version__, provenance

    argv = ["/opt/bin/medssml", "evaluate", "--manifest", f"/data/{SECRET}/m.csv", "--set", f"cache=/data/{SECRET}/c"]
    monkeypatch.setattr("sys.argv", argv)
    shutil.copy(run / "presence.json", tmp_path)
    provenance.record(tmp_path, "evaluate", 7)
    text = write_report(tmp_path).read_text(encoding="utf-8")
    head = text[text.index("<header>") : text.index("</header>")]
    assert "<span>medssml evaluate --manifest …/m.csv --set cache=…/c</span>" in head
    assert f"<span>medssml {__version__}</span>" in head and "<span>seed 7</span>" in head and "UTC" in head
    assert SECRET not in text and SECRET not in (tmp_path / provenance.FILE).read_text()
    monkeypatch.setattr("sys.argv", ["pytest"])
    provenance.record(tmp_path, "impact", 8)
    known = json.loads((tmp_path / provenance.FILE).read_text())
    assert set(known) == {"evaluate", "impact"} and known["impact"]["command"] == "medssml.impact(...)"


def test_absent_modalities_are_left_out_of_figures_and_named(tmp_path):
    presence = {"modalities": ["ct", "eeg"], "patterns": [{"pattern": "ct", "train": 3, "val": 0, "test": 1}]}
    (tmp_path / "presence.json").write_text(json.dumps(presence))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    drawn = text[text.index("<svg") : text.rindex("</svg>")]
    assert ">CT</text>" in drawn and ">EEG</text>" not in drawn and "No study has EEG." in text
    assert "studies, 4 in all" in drawn


def test_all_tasks_share_one_axis_within_what_an_auroc_can_be(run):
    from medssml.reports.results import read_results
    from medssml.reports.task_sections import limits_of

    low, high = limits_of(read_results(run))["auroc"]
    assert 0 <= low < 0.5 and 0.9 < high <= 1
    found = json.loads((run / "evaluation/metrics.json").read_text())["tasks"]
    ends = [row["auroc"].get("ci_low") for t in found.values() for row in t["subsets"].values()]
    assert low <= min(end for end in ends if end is not None)


def test_numbers_stand_beside_the_axes_and_not_at_the_diamonds():
    from medssml.reports.result_figures import Step, waterfall
    from medssml.reports.results import Estimate

    steps = [Step("CT", Estimate(0.2, 0.1, 0.3), 0.25), Step("EEG", Estimate(0.3, 0.2, 0.9), 0.2)]
    drawn = waterfall("ill", ("guessing", 0.5), steps, "all", "AUROC", limits=(0.4, 1.0))
    assert "+0.200 (0.100 to 0.300)   Bayes +0.250" in drawn
    frame = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn).group(1))
    numbers = re.findall(r'<text [^>]*?x="([\d.]+)"[^>]*>\+0', drawn)
    assert len(numbers) == 2 and len(set(numbers)) == 1, "all at one place, beside the axes"
    assert float(numbers[0]) > 0.6 * frame


def test_sections_that_there_are_not_are_refused(run, tmp_path):
    with pytest.raises(ValueError, match=r"no section \['inpact'\]; known: brief"):
        write_report(run, tmp_path / "x.html", only=["inpact"])


@pytest.mark.parametrize(
    "name", ["history.csv", "metrics.json", "impact.json", "presence.json", "problems.csv", "config.yaml"]
)
def test_a_page_of_a_single_file(name, run, tmp_path):
    source = next(run.rglob(name))
    (tmp_path / name).write_bytes(source.read_bytes())
    page = Page(write_report(tmp_path).read_text(encoding="utf-8"))
    assert page.links
    assert "Not in this report" in "".join(page.words)


def test_every_missing_file_is_named_with_its_verb(tmp_path):
    (tmp_path / "problems.csv").write_text("row,study_id,column,file,code,problem,action,fix\n")
    words = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).words)
    assert "None was found." in words
    assert "there is no usable history.csv; it is written by pretrain and finetune" in words
    assert "there is no usable impact.json; it is written by impact" in words


def test_a_damaged_file_costs_its_section_only(run, tmp_path, caplog):
    for name in ("metrics.json", "presence.json"):
        (tmp_path / name).write_bytes(next(run.rglob(name)).read_bytes())
    (tmp_path / "impact.json").write_text('{"task": "nodule", "modalities": {"ct"')
    (tmp_path / "history.csv").write_bytes(b"\xff\xfe\x00step")
    with caplog.at_level(logging.WARNING):
        words = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).words)
    assert "In brief" in words
    assert "Impact of each modality: there is no usable impact.json" in words
    assert "impact.json left out of the report" in caplog.text
    assert str(tmp_path) not in words


def test_a_file_of_another_shape_costs_its_section_only(run, tmp_path, caplog):
    (tmp_path / "presence.json").write_bytes(next(run.rglob("presence.json")).read_bytes())
    (tmp_path / "impact.json").write_text('{"modalities": ["ct", "xray"]}')
    with caplog.at_level(logging.WARNING):
        words = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).words)
    assert "Studies" in words
    assert "not as expected" in caplog.text


def test_what_is_written_into_files_cannot_become_markup(tmp_path):
    nasty = '<script>alert(1)</script>"&'
    presence = {"modalities": ["ct", nasty], "patterns": [{"pattern": f"ct+{nasty}", "train": 3, "val": 0, "test": 1}]}
    (tmp_path / "presence.json").write_text(json.dumps(presence))
    text = write_report(tmp_path).read_text(encoding="utf-8")
    assert "<script" not in text
    Page(text)


def test_multiclass_and_regression_tasks(tmp_path):
    interval = {"estimate": 0.41, "ci_low": 0.3, "ci_high": 0.5, "n": 40}
    tasks = {
        "age": {"kind": "regression", "method": "head", "subsets": {"ct": {"n": 40, "r2": interval, "mae": interval}}},
        "stage": {"kind": "multiclass", "method": "linear probe", "subsets": {"ct": {"n": 40, "auroc": interval}}},
        "none": {"kind": "binary", "method": "none", "subsets": {}, "reason": "no head"},
    }
    (tmp_path / "metrics.json").write_text(json.dumps({"tasks": tasks, "retrieval": {}, "protocol": {}}))
    words = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).words)
    assert "R²" in words
    assert "answers are those of a linear probe" in words


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no result file"):
        write_report(tmp_path)
    with pytest.raises(ValueError, match="is no folder; fix"):
        write_report(tmp_path / "nothing")


def test_tasks_of_the_synthetic_run_are_those_of_the_test():
    import numpy as np

    assert set(metrics(np.random.default_rng(0))["tasks"]) == set(TASKS)


def test_the_problems_of_every_verb_that_shares_a_folder_are_shown(tmp_path):
    header = "row,study_id,column,file,code,problem,action,fix,verb\n"
    (tmp_path / "problems.csv").write_text(header + "2,s1,ct,,units,no HU,quarantined,,evaluate\n")
    (tmp_path / "problems_impact.csv").write_text(header + "3,s2,eeg,,montage,odd channels,flagged,,impact\n")
    page = " ".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).words)
    assert "no HU" in page and "odd channels" in page


def test_the_loss_of_a_single_objective_is_drawn_once():
    one = [{"step": "1", "train/loss": "2", "train/supervised/loss": "2"}]
    two = [{"step": "1", "train/loss": "3", "train/a/loss": "1", "train/b/loss": "2"}]
    assert [panel.title for panel in panels_of(one)] == ["Loss"]
    assert [panel.title for panel in panels_of(two)] == ["Loss", "A", "B"]
