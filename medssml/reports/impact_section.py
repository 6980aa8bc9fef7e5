"""The section on what a model uses: the impact of each modality on its predictions."""

from __future__ import annotations

from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Plot, Section, Table, Text
from medssml.reports.results import Estimate, Results, estimate, number, numbers


def impact(results: Results) -> Section | None:
    """What each modality contributes to the predictions of every task."""
    blocks: list[Block] = []
    for folder, found in results.of("impact.json").items():
        if found.get("modalities"):
            blocks += _impact_of(results, folder, found)
    if not blocks:
        return None
    note = next((str(found["note"]) for found in results.of("impact.json").values() if found.get("note")), "")
    lead = (
        "Each modality is taken away from each study, alone and together with others, and the model is asked again. "
        + note
    )
    return Section("impact", "Impact of each modality", lead, blocks)


def _impact_of(results: Results, folder: str, found: dict[str, Any]) -> list[Block]:
    task, unit = str(found.get("task", "")), str(found.get("value", "value"))
    blocks: list[Block] = [Heading(task), Text(_setting(found))]
    blocks += _waterfalls(task, unit, found)
    blocks.append(_effects_table(results, task, found))
    rows = results.of("impact.csv").get(folder)
    if rows:
        effects: dict[str, list[tuple[float, str]]] = {}
        for row in rows:
            value = number(row.get("shapley"))
            if value is not None:
                label = str(row.get("label") or "").removesuffix(".0")
                effects.setdefault(words.modality(row["modality"]), []).append((value, label))
        plot = result_figures.strips(task, effects, f"Shapley value: change of the {unit}")
        blocks.append(
            Plot(plot, "Every study, one dot for each of its modalities: to the right of 0 it raises the prediction.")
        )
    blocks += _interactions(task, found)
    blocks += _further(found)
    return blocks


def _setting(found: dict[str, Any]) -> str:
    models = number(found.get("n_models")) or 1
    said = f"{words.figure(number(found.get('n_studies')))} studies"
    if models > 1:
        said += f", {models:.0f} trained models"
    taken = found.get("baseline_words") or found.get("baseline")
    return f"{said}. Value: {found.get('value', '')}." + (f" A modality that is taken away: {taken}." if taken else "")


_CANCEL = (
    "How the mean prediction comes about. Effects of opposite sign in different studies cancel here; their size is in "
    "the table."
)


def _waterfalls(task: str, unit: str, found: dict[str, Any]) -> list[Block]:
    """Of the quality where there are labels, and of the mean prediction."""
    blocks: list[Block] = []
    quality = found.get("performance") or {}
    shares = {m: estimate(v) for m, v in (quality.get("shapley") or {}).items()}
    known = [(words.modality(m), v) for m, v in shares.items() if v is not None]
    if known:
        name = words.metric(str(quality.get("metric", "auroc")))
        start = ("guessing", 0.5 if quality.get("metric", "auroc") == "auroc" else 0.0)
        plot = result_figures.waterfall(f"{task}, quality", start, known, "all modalities", name)
        count = words.figure(number(quality.get("n_complete")))
        caption = f"How much of the {name} is owed to each modality, on {count} studies that have all."
        blocks.append(Plot(plot, caption))
    steps = found.get("waterfall") or {}
    contributions = numbers(steps.get("contributions") or {})
    base = number(steps.get("base"))
    if contributions and base is not None:
        rows = [(words.modality(m), Estimate(v)) for m, v in contributions.items()]
        plot = result_figures.waterfall(
            f"{task}, prediction", ("no modality", base), rows, "all that is there", f"mean {unit}"
        )
        blocks.append(Plot(plot, _CANCEL))
    return blocks


_EFFECTS = (
    ("shapley_abs", "mean size of Shapley"),
    ("shapley", "Shapley"),
    ("necessity", "necessity"),
    ("sufficiency", "sufficiency"),
    ("swap", "swap"),
    ("performance_drop", "drop in quality"),
)


def _effects_table(results: Results, task: str, found: dict[str, Any]) -> Table:
    kept = [(key, word) for key, word in _EFFECTS if any(key in e for e in found["modalities"].values())]
    truth = results.true_shapley(task)
    shares = (found.get("performance") or {}).get("shapley") or {}
    columns = ["modality", *[word for _, word in kept]]
    if truth:
        columns += ["share of quality", "true share"]
    rows = []
    for name, effects in found["modalities"].items():
        cells = [words.modality(name), *[words.interval(estimate(effects.get(key))) for key, _ in kept]]
        if truth:
            cells += [words.interval(estimate(shares.get(name))), words.figure(truth.get(name))]
        rows.append(cells)
    caption = (
        "Necessity: all that a study has, minus all but this modality. Sufficiency: this modality alone, minus none. Swap: "
        "the prediction, minus that with another subject's modality. Means over the studies that have it; 95 % intervals."
    )
    return Table(columns, rows, caption)


def _interactions(task: str, found: dict[str, Any]) -> list[Block]:
    values = {}
    for name, value in (found.get("interactions") or {}).items():
        pair, mean = tuple(name.split(",")), number(value)
        if len(pair) == 2 and mean is not None:
            values[(pair[0], pair[1])] = mean
    if not values:
        return []
    names = [m for m in found["modalities"] if any(m in pair for pair in values)]
    share = found.get("interaction_share") or {}
    said = " Positive: together they say more than each alone. Negative: they repeat each other."
    for key, word in (("mean_of_abs", "mean of sizes"), ("abs_of_mean", "size of means")):
        value = estimate(share.get(key))
        if value is not None:
            said += f" Share of interaction ({word}): {words.interval(value)}."
    return [Plot(result_figures.interactions(task, names, values), "Mean interaction of each pair." + said)]


def _further(found: dict[str, Any]) -> list[Block]:
    """Subgroups and other baselines, folded."""
    blocks: list[Block] = []
    rows = []
    for grouping, groups in (found.get("subgroups") or {}).items():
        for group, content in groups.items():
            for name, e in content.get("modalities", {}).items():
                cells = [
                    f"{grouping}: {_group(grouping, group)}",
                    words.modality(name),
                    words.interval(estimate(e.get("shapley"))),
                ]
                cells += [words.interval(estimate(e.get("difference"))), words.figure(number(e.get("p_holm")))]
                rows.append([*cells, words.figure(number(content.get("n")))])
    if rows:
        columns = ["group", "modality", "Shapley", "difference from the others", "p (Holm)", "n"]
        blocks.append(Fold("Subgroups", [Table(columns, rows, left=2)]))
    sweep = (found.get("baselines") or {}).get("shapley") or {}
    if len(sweep) > 1:
        table = [
            [words.modality(m), *[words.interval(estimate(by.get(m))) for by in sweep.values()]]
            for m in found["modalities"]
        ]
        blocks.append(Fold("Other ways to take a modality away", [Table(["modality", *sweep], table)]))
    coalitions = numbers(found.get("coalitions") or {})
    if coalitions:
        table = [[words.subset(s), words.figure(v)] for s, v in coalitions.items()]
        blocks.append(Fold("Mean value of every set of modalities", [Table(["modalities", "mean value"], table)]))
    return blocks


def _group(grouping: str, group: str) -> str:
    return words.subset(group) if grouping == "present" else group
