"""The section on what a model uses: the impact of each modality on its predictions."""

from __future__ import annotations

from typing import Any

from medssml.reports import result_figures, words
from medssml.reports.blocks import Block, Fold, Heading, Plot, Section, Table, Text
from medssml.reports.result_figures import Step, waterfall
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
    blocks += _waterfalls(results, task, unit, found)
    blocks.append(_effects_table(found, true_values(found)))
    rows = results.of("impact.csv").get(folder)
    if rows:
        effects: dict[str, list[tuple[float, str]]] = {words.modality(name): [] for name in found["modalities"]}
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
    said = f"{words.count(number(found.get('n_studies')))} studies" + (
        f", {models:.0f} trained models" if models > 1 else ""
    )
    said += f". Value: {found.get('value', '')}."
    for key, word in (("baseline_words", "A modality is taken away"), ("empty_words", "Nothing at all")):
        if found.get(key):
            said += f" {word}: {found[key]}."
    return said


def true_values(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Quantity -> modality -> the value of the best possible predictions of simulated studies."""
    known: dict[str, dict[str, float]] = {}
    for pair in (found.get("truth") or {}).get("pairs") or []:
        value = number(pair.get("truth"))
        if value is not None:
            known.setdefault(str(pair["quantity"]), {})[str(pair["modality"])] = value
    return known


def _waterfalls(results: Results, task: str, unit: str, found: dict[str, Any]) -> list[Block]:
    """Of the quality where there are labels, and of the mean prediction."""
    blocks: list[Block] = []
    quality = found.get("performance") or {}
    truth = true_values(found).get("performance_shapley", {})
    shares = [(m, estimate(value)) for m, value in (quality.get("shapley") or {}).items()]
    steps = [Step(words.modality(m), share, truth.get(m)) for m, share in shares if share is not None]
    if steps:
        metric = str(quality.get("metric", "auroc"))
        start = ("guessing", 0.5 if metric == "auroc" else 0.0)
        plot = waterfall(f"{task}, quality", start, steps, "all modalities", words.metric(metric))
        count = words.count(number(quality.get("n_complete")))
        caption = (
            f"How much of the {words.metric(metric)} is owed to each modality, on the {count} studies that have all."
        )
        blocks.append(Plot(plot, caption))
    prediction = found.get("waterfall") or {}
    contributions, base = numbers(prediction.get("contributions") or {}), number(prediction.get("base"))
    if contributions and base is not None:
        steps = [Step(words.modality(m), Estimate(value)) for m, value in contributions.items()]
        plot = waterfall(f"{task}, prediction", ("no modality", base), steps, "all that is there", f"mean {unit}")
        caption = (
            "How the mean prediction comes about. Effects of opposite sign cancel here; their size is in the table."
        )
        blocks.append(Plot(plot, caption))
    return blocks


def _effects_table(found: dict[str, Any], truth: dict[str, dict[str, float]]) -> Table:
    """One row per modality, one column for every quantity that a measure has a heading for."""
    kept, said = [], []
    for measure in (found.get("measures") or {}).values():
        headings = measure["headings"].items()
        own = [(key, title) for key, title in headings if any(key in e for e in found["modalities"].values())]
        kept += own
        said += [measure["words"]] if own else []
    columns = ["modality"]
    for key, title in kept:
        columns += [title, "true value"] if key in truth else [title]
    rows = []
    for name, effects in found["modalities"].items():
        cells = [words.modality(name)]
        for key, _ in kept:
            cells.append(words.interval(estimate(effects.get(key))))
            if key in truth:
                cells.append(words.figure(truth[key].get(name)))
        rows.append(cells)
    caption = " ".join([*said, "Means over the studies that have it; 95 % intervals."])
    if truth:
        caption += " True value: the same of the Bayes predictor on the same simulated studies."
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
    said = " " + str(((found.get("measures") or {}).get("interactions") or {}).get("words", ""))
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
                rows.append([*cells, words.count(number(content.get("n")))])
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
