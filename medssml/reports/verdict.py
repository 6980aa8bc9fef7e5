"""What a run learned and what not, in sentences: the first thing that a reader of its page needs."""

from __future__ import annotations

from typing import Any

from medssml.reports import words
from medssml.reports.results import Estimate, Results, estimate, number

CHANCE = 0.5  # of an AUROC
REPORTS = ("ct->report", "xray->report")  # what a report describes, and so can be found by


def verdicts(results: Results) -> list[str]:
    """One sentence per task and per retrieval, from gain.json, metrics.json and impact.json; none where no gain was measured."""
    gains = next(iter(results.of("gain.json").values()), None)
    if not gains:
        return []
    impacts = {str(impact.get("task")): impact for impact in results.of("impact.json").values()}
    said = [f"{task}: {_task(found)}{_counts_most(impacts.get(task))}" for task, found in gains["tasks"].items()]
    evaluations = results.of("metrics.json")
    # Reports are found in the space that pretraining made; where it was not evaluated, in that of the run.
    retrieval = evaluations.get("pretrain", evaluations.get("", {})).get("retrieval") or {}
    return said + [_found(name, row) for name, row in retrieval.items() if name in REPORTS]


def _task(found: dict[str, Any]) -> str:
    """How good, beside the best possible and training from scratch."""
    model, gain = estimate(found["pretrained"]), estimate(found["gain"])
    said = f"AUROC {words.interval(model)}"
    if model is not None and model.low is not None and model.low <= CHANCE:
        said = f"not better than chance, {said}"
    best = number(found.get("bayes"))
    said += f" where {words.figure(best)} is the best possible" if best is not None else ""
    if gain is None or gain.low is None or gain.high is None:
        return said
    scratch = words.figure(number(found["scratch"]))
    if gain.low > 0:
        return f"{said}; pretraining adds {words.interval(gain)} to the {scratch} of training from scratch"
    if gain.high < 0:
        loss = Estimate(-gain.value, -gain.high, -gain.low)
        return f"{said}; pretraining costs {words.interval(loss)} of the {scratch} of training from scratch"
    return f"{said}; from scratch {scratch}, no difference shown"


def _counts_most(impact: dict[str, Any] | None) -> str:
    """Which modality counts most for the AUROC, and whether in truth it is the same."""
    pairs = [] if impact is None else (impact.get("truth") or {}).get("pairs") or []
    shares = [pair for pair in pairs if pair.get("quantity") == "performance_shapley"]
    if not shares:
        return "."
    measured = max(shares, key=lambda pair: number(pair) or 0.0)["modality"]
    true = max(shares, key=lambda pair: number(pair.get("truth")) or 0.0)["modality"]
    ending = "as in truth" if measured == true else f"in truth {words.modality(true)}"
    word = words.modality(measured)
    return f". {word[:1].upper()}{word[1:]} counts most, {ending}."


def _found(name: str, row: dict[str, Any]) -> str:
    """How often the right report is among the five nearest."""
    where = " → ".join(words.modality(part) for part in name.split("->"))
    recall, chance = estimate(row["r@5"]), number(row["r@5"].get("chance"))
    said = f"{where}: the right one is among the first five for {words.interval(recall)}"
    if recall is None or not chance:
        return f"{said}."
    if recall.low is not None and recall.low <= chance:
        return f"{said}, not better than chance ({words.figure(chance)})."
    return f"{said}, {recall.value / chance:.1f} times chance."
