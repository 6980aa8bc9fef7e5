"""What evaluate, predict, embed and impact found, as tables on the console: the numbers that their page begins with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medssml.reports import words
from medssml.reports.alignment_section import ALIGNED, left_as_they_are, shown
from medssml.reports.results import Results, estimate, number
from medssml.reports.verdict import GUESSING, headline, sentences
from medssml.runs import console

if TYPE_CHECKING:
    import pandas as pd


def say_evaluation(metrics: Mapping[str, Any]) -> None:
    """Every task from all that each study has and from each modality alone; retrieval; and the verdicts."""
    tasks: dict[str, dict[str, Any]] = {t: entry for t, entry in metrics["tasks"].items() if entry.get("subsets")}
    alone = list(dict.fromkeys(s for entry in tasks.values() for s in entry["subsets"] if s and "+" not in s))
    rows = []
    for task, entry in tasks.items():
        row, subset = headline(entry)
        metric = next((name for name in GUESSING if name in row), "")
        by = [_alone(entry["subsets"].get(name) or {}, metric) for name in alone]
        together = _said(row.get(metric)) if subset is None else "-"
        rows.append((task, entry["method"], words.metric(metric), together, *by, int(number(row.get("n")) or 0)))
    if rows:
        console.table(rows, ("task", "by", "metric", "all that is there", *(f"{name} alone" for name in alone), "n"))
    found = [
        (words.direction(name), _said(row["r@1"]), _said(row["r@5"]), row["r@5"].get("chance"), int(row["n"]))
        for name, row in (metrics.get("retrieval") or {}).items()
    ]
    if found:
        console.table(found, ("from → to", "first is right", "right among first 5", "chance", "n"))
    _say_verdicts({"metrics.json": {"": metrics}})
    if metrics.get("transductive"):
        _say_aligned(metrics["transductive"])


def _say_aligned(found: Mapping[str, Any]) -> None:
    """Every task as it is and aligned, from all that each study has, and what was not moved."""
    console.say(f"apart, the {ALIGNED[found['align']]} of vectors moved to those of training ({found['protocol']}):")
    rows = []
    for task, entry in found["tasks"].items():
        seen = entry.get("as_observed", {})
        for metric in shown(seen):
            ways = (seen[way][metric] for way in ("inductive", "transductive", "difference"))
            rows.append((task, words.metric(metric), *map(_said, ways), seen["n"]))
    console.table(rows, ("task", "metric", "as they are", "aligned", "difference", "n"))
    if left := left_as_they_are(found):
        console.say(f"left as they are: {left}")


def _alone(row: Mapping[str, Any], metric: str) -> str:
    found = estimate(row.get(metric))
    return "-" if found is None else words.figure(found.value)


def _said(value: Any) -> str:
    return words.interval(estimate(value))


def _say_verdicts(files: dict[str, dict[str, Any]]) -> None:
    for sentence in sentences(Results(Path(), files)):
        console.say(sentence)


def say_predictions(answers: pd.DataFrame) -> dict[str, float]:
    """How many studies were answered per task, from what, and how the answers are spread; nothing more to tell."""
    rows = []
    classes = answers["class"].fillna("") if "class" in answers else ""
    for (task, name), part in answers.assign(**{"class": classes}).groupby(["task", "class"], sort=False):
        low, middle, high = (float(part["probability"].quantile(q)) for q in (0.05, 0.5, 0.95))
        rows.append((str(task), str(name), low, middle, high, len(part)))
    columns = ["task", "class", "answer: 5 %", "median", "95 %", "studies"]
    kept = [i for i in range(len(columns)) if i != 1 or any(row[1] for row in rows)]
    console.table([[row[i] for i in kept] for row in rows], [columns[i] for i in kept])
    _say_subsets(answers.drop_duplicates("study_id")["subset"])
    return {}


def say_reports(written: pd.DataFrame, truth: Path | None) -> dict[str, float]:
    """How many reports were written, from what, and how near they are to the studies' own; the scores by name.

    Args:
        written: of `medssml.evaluation.generation.write_reports`.
        truth: of simulated studies, whose findings a rule reads from any text; None of others.
    """
    from medssml.evaluation.bayes import read_truth
    from medssml.evaluation.generation import generation_scores, simulated_scores
    from medssml.phantom.report import findings_of

    console.say(f"{len(written):,} reports written")
    _say_subsets(written["subset"])
    known = written[written["reference"].notna()]
    if known.empty:
        return {}
    scores = generation_scores(list(known["report"]), list(known["reference"]), findings_of if truth else None)
    if truth is not None:
        scores |= simulated_scores(read_truth(truth), written)
    console.table([(name, value) for name, value in scores.items()], (f"of {len(known):,} reports", "score"))
    return scores


def say_embeddings(subsets: pd.Series, dim: int) -> None:
    """How many studies have an embedding, of what size, and from what."""
    console.say(f"{len(subsets):,} studies, {dim} numbers each")
    _say_subsets(subsets)


def _say_subsets(subsets: pd.Series) -> None:
    counts = subsets.value_counts()
    console.table([(words.subset(str(name)), int(count)) for name, count in counts.items()], ("from", "studies"))


def say_impact(result: dict[str, Any]) -> None:
    """The share of the quality first, then the mean size, then what the quality loses; and the verdict.

    Signed means, which cancel, are in impact.json and in the fold of the page.
    """
    quality = result.get("performance") or {}
    metric = words.metric(str(quality.get("metric", "auroc")))
    shares, headed = quality.get("shapley") or {}, _unsigned(result)
    rows = [
        (words.modality(name), _said(shares.get(name)), *(_said(entry.get(key)) for key, _ in headed))
        for name, entry in result["modalities"].items()
    ]
    console.table(rows, ("modality", f"share of the {metric}", *(title for _, title in headed)))
    _say_verdicts({"impact.json": {"": result}})


def _unsigned(result: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """(quantity, heading) of what cannot cancel, and some modality has."""
    entries = list(result["modalities"].values())
    headings = [item for measure in result["measures"].values() for item in measure["headings"].items()]
    return [
        (key, title)
        for key, title in headings
        if any(key in entry for entry in entries) and not any(f"{key}_abs" in entry for entry in entries)
    ]


def say_stress(result: Mapping[str, Any]) -> None:
    """Every obstacle of every task: the metric without it and at its most, what it costs; and the verdict in words."""
    from medssml.reports.stress_page import OVERVIEW, judged, rows

    for task, entry in result["tasks"].items():
        console.say(f"{task}, {words.metric(str(entry['metric']))}, n = {int(entry['n']):,}:")
        console.table(list(rows(entry)), (*OVERVIEW, "verdict"))
        for name, mark, sentence in judged(task, entry):
            console.say(f"{name}: {mark}: {sentence}")
